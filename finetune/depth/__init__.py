"""Depth from SEM images: pairs, networks, training, and what is handed out."""
