import subprocess
import sys

import pytest

FILE_HALF = [
    "scan", "splits", "readers", "declared", "set_limits", "divide", "folds", "fractions",
    "merging", "together", "tree", "leaks", "check.run", "check.page", "synthetic.write",
]  # fmt: skip


@pytest.mark.parametrize("module", FILE_HALF)
def test_the_file_half_starts_without_tensorflow(module: str) -> None:
    program = f"import data_prep.{module}, sys; print({{'tensorflow', 'keras'}} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
