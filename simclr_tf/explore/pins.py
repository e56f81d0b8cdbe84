"""The few images that are looked at in every run."""

import difflib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans

from data_prep.errors import UserError
from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.explore.data import ExploreData

NUMBER = 6


def common_images(runs: Sequence[ExploreData]) -> list[str]:
    """The names that all runs have, in the first run's order.

    Raises:
        UserError: There are none, or two images of a run have the same name.
    """
    for run in runs:
        ((most_frequent, times),) = Counter(run.names).most_common(1)
        if times > 1:
            raise UserError(
                f"{run.title}: two images are called {most_frequent}: names must differ"
            )
    others = [set(run.names) for run in runs[1:]]
    common = [name for name in runs[0].names if all(name in names for names in others)]
    if not common:
        raise UserError("the runs have no image in common: embed the same images with all of them")
    return common


def check_pinned(pinned: Sequence[str], common: Sequence[str]) -> list[str]:
    """The pinned names, each once.

    Raises:
        UserError: One is not among the common images; the most similar names are given.
    """
    known = set(common)
    for name in pinned:
        if name not in known:
            similar = difflib.get_close_matches(name, common, n=3, cutoff=0.4)
            hint = f"; similar names: {', '.join(similar)}" if similar else ""
            raise UserError(f"no image that all runs have is called {name}{hint}")
    return list(dict.fromkeys(pinned))


def diverse_images(
    features: Sequence[np.ndarray], number: int = NUMBER, seed: int = 0
) -> list[int]:
    """Images typical of different parts of the embeddings.

    The images are grouped by k-means on the features of all runs side by side, each scaled to
    length 1; of every group the image nearest to its centre is taken, the largest group first.

    Args:
        features: Of every run, float [n, d], the same images in the same order.
        number: Images; fewer if there are fewer, or fewer that differ.
        seed: Of k-means.

    Returns:
        Positions, each once.
    """
    rows = np.concatenate([l2_normalize(part) for part in features], axis=1)
    number = min(number, len(np.unique(rows, axis=0)))
    fitted = KMeans(number, n_init=1, random_state=seed).fit(rows)
    distances = fitted.transform(rows)
    largest_first = np.argsort(-np.bincount(fitted.labels_, minlength=number), kind="stable")
    return [int(distances[:, group].argmin()) for group in largest_first]
