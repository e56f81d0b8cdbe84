"""Command-line programs of the data layer, and what every command shares."""
