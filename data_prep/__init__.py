"""From files to batches: manifests, splits, readers, sources, views and synthetic images.

The packages of files (`manifest`, `reading`, `check`, `synthetic`) work without TensorFlow, so that
checking and splitting a data set starts at once.
"""
