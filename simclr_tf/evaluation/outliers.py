"""How far each row lies from the others, by its nearest neighbours."""

from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from sklearn.neighbors import LocalOutlierFactor

from simclr_tf.evaluation.blockwise import Nearest

Rule = Literal["distance", "lof"]


def outlier_scores(neighbours: Nearest, rule: Rule = "distance") -> np.ndarray:
    """A score for each row, the larger the more it stands apart.

    Args:
        neighbours: Of all n rows among themselves, k of each, k > 0.
        rule: `distance`, the mean cosine distance to the neighbours; `lof`, the local outlier
            factor (Breunig et al. 2000) of Euclidean distances between rows of length 1: about 1
            inside a cluster, whatever its density.

    Returns:
        float32 [n].
    """
    distance = np.maximum(1 - neighbours.similarities.astype(np.float64), 0)
    if rule == "distance":
        return distance.mean(axis=1).astype(np.float32)
    n, k = distance.shape
    graph = csr_array(
        (np.sqrt(2 * distance).ravel(), neighbours.indices.ravel(), np.arange(n + 1) * k),
        shape=(n, n),
    )
    return _factor(graph, k)


def _factor(graph: csr_array, k: int) -> np.ndarray:
    """The factor of a graph of distances to k neighbours, which leaves out every row itself."""
    n = graph.shape[0]
    # scikit-learn counts a row among its own neighbours in a graph that is handed over.
    itself = csr_array((np.zeros(n), np.arange(n), np.arange(n + 1)), shape=(n, n))
    rows = np.concatenate([itself.indices[:, None], graph.indices.reshape(n, k)], axis=1)
    values = np.concatenate([itself.data[:, None], graph.data.reshape(n, k)], axis=1)
    whole = csr_array((values.ravel(), rows.ravel(), np.arange(n + 1) * (k + 1)), shape=(n, n))
    model = LocalOutlierFactor(n_neighbors=k, metric="precomputed").fit(whole)
    return -model.negative_outlier_factor_.astype(np.float32)
