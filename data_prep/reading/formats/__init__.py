"""Files that hold arrays rather than pictures: NPY, NPZ, HDF5, FITS, RAW; one module a format.

Every module has `open_array(source, reading)`, a context manager that gives the stored array: an
object with `shape`, `dtype` and slicing, which reads from the disk only what is sliced.
"""
