"""Tests of the functions and objects of `import simclr_tf`."""
