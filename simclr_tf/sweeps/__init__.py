"""Many pretraining runs at one command: settings side by side on the same images."""
