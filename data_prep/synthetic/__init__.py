"""Seeded generators of labelled scientific images, with NumPy alone."""
