"""The settings of pretraining runs: declarations, sections, presets."""
