"""Command-line programs of the representation layer."""
