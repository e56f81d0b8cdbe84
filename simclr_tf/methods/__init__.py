"""Ways to learn: what one training step computes from images and labels."""
