"""From files to batches: manifests, splits, readers, sources, views and synthetic images.

The file half (`errors`, `manifest`, `scan`, `splits`, `readers`, `synthetic`) works without
TensorFlow, so that checking and splitting a data set starts at once.
"""
