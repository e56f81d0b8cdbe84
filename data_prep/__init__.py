"""From files to batches: manifests, splits, readers, sources, views and synthetic images.

`manifest`, `reading`, `check` and `synthetic` work without TensorFlow, so that checking and
splitting a data set starts at once.
"""
