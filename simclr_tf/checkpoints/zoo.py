"""The public SimCLR checkpoints: names, accuracies, classes, and where they lie once fetched.

Nothing here needs TensorFlow, so that listing and fetching start at once.

The logits of the public supervised heads are in the order of `imagenet2012` in TensorFlow Datasets:
WordNet ids, ascending. The ids and names of the classes stand in `imagenet_classes.csv`. A name is
the first lemma of the synset in WordNet 3.0, taken from the lists in the package timm; where two
classes would share it, a word in brackets or the next lemma tells them apart. WordNet's licence
asks for this notice:

    WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.

    Permission to use, copy, modify and distribute this software and database and its documentation
    for any purpose and without fee or royalty is hereby granted, provided that you agree to comply
    with the following copyright notice and statements, including the disclaimer, and that the same
    appear on ALL copies of the software, database and documentation, including modifications that
    you make for internal use or for distribution.

    THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS
    OR WARRANTIES, EXPRESS OR IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY
    MAKES NO REPRESENTATIONS OR WARRANTIES OF MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE
    OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR DOCUMENTATION WILL NOT INFRINGE ANY THIRD
    PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS.

    The name of Princeton University or Princeton may not be used in advertising or publicity
    pertaining to distribution of the software and/or database. Title to copyright in this software,
    database and any associated documentation shall at all times remain with Princeton University
    and LICENSEE agrees to preserve same.
"""

import csv
import difflib
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from data_prep.errors import UserError
from simclr_tf.checkpoints.download import BASE_URL, fetch_folder, is_complete, is_plain_name

BUCKET = "simclr-checkpoints"

# Table 1 of the SimCLRv2 paper. The accuracies are ImageNet top-1 in %: fine-tuned on 1, 10 and
# 100 % of the labels, linear classifier on frozen features, supervised.
_V2_KINDS = ("finetuned_1pct", "finetuned_10pct", "finetuned_100pct", "pretrained", "supervised")
_V2_TABLE = """
depth width sk params   1%  10% 100% linear supervised
   50     1  0     24 57.9 68.4 76.3   71.7       76.6
   50     1  1     35 64.5 72.1 78.7   74.6       78.5
   50     2  0     94 66.3 73.9 79.1   75.6       77.8
   50     2  1    140 70.6 77.0 81.3   77.7       79.3
  101     1  0     43 62.1 71.4 78.2   73.6       78.0
  101     1  1     65 68.3 75.1 80.6   76.3       79.6
  101     2  0    170 69.1 75.8 80.7   77.0       78.9
  101     2  1    257 73.2 78.8 82.4   79.0       80.1
  152     1  0     58 64.0 73.0 79.3   74.5       78.3
  152     1  1     89 70.0 76.5 81.3   77.2       79.9
  152     2  0    233 70.2 76.6 81.1   77.4       79.1
  152     2  1    354 74.2 79.4 82.9   79.4       80.4
  152     3  1    795 74.9 80.1 83.1   79.8       80.5
"""

# ResNet-50 of SimCLRv1. The pretrained row stands in the README of google-research/simclr; the
# other two its authors measured on TF2 copies of the weights (tf2/colabs/imagenet_results.ipynb).
_V1_WIDTHS = {1: 24, 2: 94, 4: 375}  # width to parameters in millions
_V1_TOP_1 = {
    "pretrain": (69.1, 74.2, 76.6),
    "finetune_10pct": (65.8, 71.6, 74.5),
    "finetune_100pct": (75.6, 79.2, 80.8),
}

_LEGEND = """\
top-1: published ImageNet accuracy in %; of pretrained and pretrain with a linear classifier on
frozen features, of finetuned_Npct and finetune_Npct with all weights trained on
N % of the labels."""


@dataclass(frozen=True)
class ZooEntry:
    """One public checkpoint.

    Attributes:
        name: As it is written for `--checkpoint`, such as `simclrv2/pretrained/r50_1x_sk0`.
        path: Its folder in the bucket, with a slash at the end.
        kind: How it was trained; the release's own word.
        depth: Depth of the ResNet.
        width: Width multiplier.
        sk: Whether it has selective kernels.
        parameters: Of the backbone, in millions.
        top_1: Published ImageNet top-1 accuracy in %; None where there is none.
    """

    name: str
    path: str
    kind: str
    depth: int
    width: int
    sk: bool
    parameters: int
    top_1: float | None


def _version_2(kind: str) -> list[ZooEntry]:
    rows = [line.split() for line in _V2_TABLE.strip().splitlines()[1:]]
    entries = []
    for depth, width, sk, parameters, *accuracies in rows:
        name = f"simclrv2/{kind}/r{depth}_{width}x_sk{sk}"
        top_1 = float(accuracies[_V2_KINDS.index(kind)])
        sizes = (int(depth), int(width), sk == "1", int(parameters))
        entries.append(ZooEntry(name, f"{name}/", kind, *sizes, top_1))
    return entries


def _version_1(kind: str) -> list[ZooEntry]:
    names = [f"simclrv1/{kind}/{width}x" for width in _V1_WIDTHS]
    return [
        ZooEntry(name, f"{name}/", kind, 50, width, False, parameters, top_1)
        for name, (width, parameters), top_1 in zip(
            names, _V1_WIDTHS.items(), _V1_TOP_1[kind], strict=True
        )
    ]


_ENTRIES = (
    *(entry for kind in ("pretrained", *_V2_KINDS[:3], "supervised") for entry in _version_2(kind)),
    *(entry for kind in _V1_TOP_1 for entry in _version_1(kind)),
)


def entries() -> tuple[ZooEntry, ...]:
    """Every public checkpoint."""
    return _ENTRIES


def find(name: str) -> ZooEntry | None:
    """The checkpoint of this name, with or without a slash at the end; None if there is none."""
    wanted = name.rstrip("/")
    return next((entry for entry in _ENTRIES if entry.name == wanted), None)


def cache_dir() -> Path:
    """The folder of downloads: `SIMCLR_TF_CACHE`, or `simclr_tf` in the user's cache."""
    own = os.environ.get("SIMCLR_TF_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "simclr_tf"


def table() -> str:
    """All checkpoints, aligned, with a head and a legend."""
    rows = [("name", "depth", "width", "SK", "parameters (M)", "top-1")]
    for e in _ENTRIES:
        top_1 = "" if e.top_1 is None else f"{e.top_1:.1f}"
        sk = "yes" if e.sk else "no"
        rows.append((e.name, str(e.depth), f"{e.width}x", sk, str(e.parameters), top_1))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        cells = [name.ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", _LEGEND])


def fetch(name: str, *, base_url: str = BASE_URL) -> Path:
    """Downloads a checkpoint, unless it is here already.

    Files placed into its folder by hand are taken as they are.

    Args:
        name: The checkpoint's name.
        base_url: Address of the storage service.

    Returns:
        The local folder that holds it.

    Raises:
        UserError: There is no such checkpoint, or it could not be downloaded whole.
    """
    entry = find(name)
    if entry is None:
        names = [known.name for known in _ENTRIES]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"{name}: no such public checkpoint{hint} (simclr-zoo lists all of them)")
    folder = cache_dir() / entry.name
    if not is_complete(folder):
        fetch_folder(BUCKET, entry.path, folder, base_url=base_url)
    return folder


_ADDRESS = re.compile(
    r"(gs://|https://storage\.(googleapis|cloud\.google)\.com/)(?P<bucket>[^/]+)/(?P<path>.+)"
)


def _fetch_address(address: str, base_url: str) -> str:
    """Downloads what a `gs://` or `https://` address means; the local folder or prefix."""
    match = _ADDRESS.fullmatch(address.rstrip("/"))
    if match is None:
        raise UserError(
            f"{address}: of remote checkpoints only those in Google Cloud Storage can be read "
            "(gs://BUCKET/FOLDER or https://storage.googleapis.com/BUCKET/FOLDER); download it, "
            "and give its folder"
        )
    if not all(map(is_plain_name, (match["bucket"], *match["path"].split("/")))):
        raise UserError(f"{address}: holds a part that cannot be the name of a folder here")
    folder, _, last = match["path"].rpartition("/")
    is_prefix = re.search(r"ckpt-\d+$", last)
    prefix = folder if is_prefix else match["path"]
    local = cache_dir() / match["bucket"] / prefix
    if not is_complete(local):
        fetch_folder(match["bucket"], f"{prefix}/", local, base_url=base_url)
    return str(local / last if is_prefix else local)


def resolve(path: str, *, base_url: str = BASE_URL) -> str:
    """Turns a name of the zoo, or an address, into a local path, downloading it where needed.

    Args:
        path: A name of the zoo, a `gs://` or `https://` address in Google Cloud Storage, or any
            path. What exists here under that very path comes first.
        base_url: Address of the storage service.

    Returns:
        The local folder or prefix of what was fetched; any other path as it was given.

    Raises:
        UserError: It can only be meant as a name of the zoo and is none, or could not be
            downloaded whole.
    """
    is_local = os.path.exists(path) or os.path.exists(f"{path}.index")
    if path.startswith(("gs://", "https://", "http://")):
        return _fetch_address(path, base_url)
    if is_local or not path.startswith(("simclrv1/", "simclrv2/")):
        return path
    return str(fetch(path, base_url=base_url))


def class_names() -> tuple[str, ...]:
    """Short English names of the classes, no two alike, in the order of the logits."""
    return tuple(name for _, name in _classes())


def wordnet_ids() -> tuple[str, ...]:
    """WordNet ids of the classes, such as `n01440764`, in the order of the logits."""
    return tuple(wordnet_id for wordnet_id, _ in _classes())


@cache
def _classes() -> tuple[tuple[str, str], ...]:
    text = files("simclr_tf.checkpoints").joinpath("imagenet_classes.csv").read_text("utf-8")
    return tuple((row["wordnet_id"], row["name"]) for row in csv.DictReader(text.splitlines()))
