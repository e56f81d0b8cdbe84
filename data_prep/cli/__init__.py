"""Command-line programs of the data layer, and the parts that all commands share."""
