"""Weights on disk: the run's own checkpoints and the layouts of the reference."""
