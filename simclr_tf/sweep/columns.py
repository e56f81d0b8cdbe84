"""The numbers that settings are compared by."""

SCORES = ("knn_accuracy", "linear_probe_accuracy")

# What tables can be sorted by, and whether large values come first.
SORT_BY = {
    "knn_accuracy": True,
    "linear_probe_accuracy": True,
    "loss": False,
    "effective_rank": True,
    "seconds": False,
}
