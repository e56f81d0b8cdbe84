"""The 1,000 classes of ImageNet (ILSVRC 2012), in the order of the public checkpoints' logits.

That order is the one of `imagenet2012` in TensorFlow Datasets: WordNet ids, ascending. The ids and
names stand in `imagenet_classes.csv`. A name is the first lemma of the synset in WordNet 3.0, taken
from the lists in the package timm; where two classes would share it, a word in brackets or the next
lemma tells them apart. WordNet's licence asks for this notice:

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
from functools import cache
from importlib.resources import files


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
