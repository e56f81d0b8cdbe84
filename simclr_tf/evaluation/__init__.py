"""Measuring representations: k-NN, linear probes, metrics with intervals, figures."""
