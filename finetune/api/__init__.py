"""The functions and objects of `import simclr_tf`."""
