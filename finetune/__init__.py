"""Labels and targets: fine-tuning, comparing, reporting."""
