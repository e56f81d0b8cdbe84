"""Checks of a set of images for faults, before anything is trained on it."""
