"""The table of a data set's images: found, paired, grouped, split, drawn from."""
