"""Trained classifiers as files that run without this package."""
