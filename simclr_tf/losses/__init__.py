"""Losses as pure functions of tensors; no flags, no Keras state."""
