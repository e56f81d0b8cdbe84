"""Views of images, stateless and seeded."""
