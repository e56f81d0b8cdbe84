"""Image files to arrays: formats, headers, intensity rules, tiles."""

from data_prep.reading.spec import Reading, parse_reading

__all__ = ["Reading", "parse_reading"]
