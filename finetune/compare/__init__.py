"""The comparison of strategies that `simclr-compare` runs."""
