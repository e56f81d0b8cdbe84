"""Which way to a classifier is best for given images: strategies side by side."""
