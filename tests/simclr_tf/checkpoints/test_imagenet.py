import importlib.util
from pathlib import Path

from simclr_tf.checkpoints.zoo import class_names, wordnet_ids


def test_the_order_is_that_of_tensorflow_datasets() -> None:
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec is not None
    assert spec.origin is not None
    labels = Path(spec.origin).parent / "datasets" / "imagenet2012" / "labels.txt"
    assert wordnet_ids() == tuple(labels.read_text().split())


def test_ids_ascend_and_names_are_told_apart() -> None:
    ids, names = wordnet_ids(), class_names()
    assert len(ids) == len(names) == 1000
    assert list(ids) == sorted(set(ids))
    assert len({name.lower() for name in names}) == 1000
    assert all(name == name.strip() and name for name in names)


def test_classes_that_everyone_knows_stand_at_their_places() -> None:
    ids, names = wordnet_ids(), class_names()
    assert (ids[0], names[0]) == ("n01440764", "tench")
    assert (ids[-1], names[-1]) == ("n15075141", "toilet tissue")
    assert names[281] == names[ids.index("n02123045")] == "tabby"
    assert names[ids.index("n02012849")] == "crane (bird)"
    assert names[ids.index("n03126707")] == "crane (machine)"
