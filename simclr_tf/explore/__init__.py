"""Looking at an embedding in a browser: scatter, thumbnails, neighbours, comparisons of runs."""
