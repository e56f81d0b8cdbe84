"""Optimizers and learning-rate schedules of SimCLR."""
