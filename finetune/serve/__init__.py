"""A local page that classifies uploaded images."""
