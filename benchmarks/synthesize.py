"""How fast synthetic sets are made, and how hard they are: `python benchmarks/synthesize.py`.

Makes 1,000 images of 128 px of every kind (of sem_depth 1,000 depth maps of 72x48 px with their
2,000 simulated and 1,000 "real" pictures) on two cores at most. Beside the time stands the share
that a logistic regression on 16x16 thumbnails gets right in five folds: a set should be above
chance and, if it is to show what a network can do, well below 1.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.manifest.manifest import Manifest
from data_prep.synthetic.kinds import KINDS
from data_prep.synthetic.write import write_set


def thumbnails(manifest: Manifest) -> np.ndarray:
    """All images as 16x16 pixels in a row: float64 [n, 256] or [n, 768]."""
    rows = []
    for file in manifest.files():
        with Image.open(file) as image:
            small = image.resize((16, 16), Image.Resampling.BOX)
        rows.append(np.sqrt(np.asarray(small, np.float64).ravel()))
    return np.array(rows)


def linear_accuracy(manifest: Manifest) -> float:
    """Five-fold accuracy of a logistic regression; images of one group stay together."""
    labels = [record.label for record in manifest.records]
    groups = [record.group or record.path for record in manifest.records]
    folds = GroupKFold(5, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(model, thumbnails(manifest), labels, groups=groups, cv=folds)
    return float(scores.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="images of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(f"{'kind':12s}{'samples':>9s}{'seconds':>9s}{'CPU s':>8s}{'linear':>9s}{'chance':>9s}")
    for name in args.kinds:
        classes = len(KINDS[name].classes)
        each = -(-args.images // classes)
        with tempfile.TemporaryDirectory() as folder:
            wall, cpu = time.perf_counter(), time.process_time()
            manifest = write_set(name, Path(folder, "set"), images_per_class=each, seed=0)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            accuracy = linear_accuracy(manifest)
        print(
            f"{name:12s}{each * classes:9d}{wall:9.1f}{cpu:8.1f}{accuracy:9.3f}{1 / classes:9.3f}"
        )


if __name__ == "__main__":
    main()
