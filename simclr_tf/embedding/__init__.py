"""Features of whole image sets on disk, and what can be seen in them."""
