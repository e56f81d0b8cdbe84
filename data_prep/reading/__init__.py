"""Image files to arrays: formats, headers, intensity rules, tiles."""
