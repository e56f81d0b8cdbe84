"""Seeded generators of labelled scientific images, with NumPy and SciPy alone."""
