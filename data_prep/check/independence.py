"""Whether a feature of the files and the class of the images are independent: a permutation test.

The accuracy of a cross-validated guess tells how much a feature gives away, but shuffling labels
against such guesses is no fair test: the folds share images, and unrelated features are called
related several times too often. Mutual information is a function of the table of feature against
class alone, so that shuffled labels give its distribution exactly.
"""

import numpy as np

_BINS = 8
_PERMUTATIONS = 2000
_AT_ONCE = 100


def independence_p_value(feature: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    """How often shuffled labels have as much mutual information with a feature as the true ones.

    Args:
        feature: Of each image, float [n]; more than 8 different values are put into 8 bins of about
            as many images.
        labels: Classes, [n].
        seed: Of the 2,000 shuffles.

    Returns:
        The p-value, from 1/2001 to 1.
    """
    levels = _levels(feature)
    classes = np.unique(labels, return_inverse=True)[1]
    truth = _information(levels, classes[np.newaxis])[0]
    rng = np.random.default_rng([seed, 0x5BFF])
    reached = 0
    for _ in range(0, _PERMUTATIONS, _AT_ONCE):
        shuffled = rng.permuted(np.tile(classes, (_AT_ONCE, 1)), axis=1)
        # Equal tables may differ in the last bit of the sum.
        reached += int(np.sum(_information(levels, shuffled) >= truth - 1e-9))
    return (reached + 1) / (_PERMUTATIONS + 1)


def _levels(feature: np.ndarray) -> np.ndarray:
    values = np.unique(feature)
    if len(values) <= _BINS:
        return np.searchsorted(values, feature)
    edges = np.unique(np.quantile(feature, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, feature, side="right")


def _information(levels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mutual information but for a constant, of each row of classes [k, n] with levels [n]: [k]."""
    rows, number = classes.shape
    shape = (rows, int(levels.max()) + 1, int(classes.max()) + 1)
    cells = np.arange(rows)[:, np.newaxis] * (shape[1] * shape[2]) + levels * shape[2] + classes
    table = np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape) / number
    return (table * np.log(np.where(table > 0, table, 1.0))).sum(axis=(1, 2))
