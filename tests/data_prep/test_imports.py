"""Packages that start without TensorFlow, which takes seconds."""

import pkgutil
import subprocess
import sys

import pytest

import data_prep.check
import data_prep.manifest
import data_prep.reading
import data_prep.synthetic


@pytest.mark.parametrize(
    "package", [data_prep.manifest, data_prep.reading, data_prep.check, data_prep.synthetic]
)
def test_files_manifests_and_checks_start_without_tensorflow(package) -> None:
    modules = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    assert len(modules) > 5
    program = (
        f"import {', '.join(modules)}, sys; print({{'tensorflow', 'keras'}} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
