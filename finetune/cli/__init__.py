"""Command-line programs of the fine-tuning layer."""
