"""A small embedding to look at, with names that pages could trip over."""

import io

import numpy as np
from PIL import Image

from simclr_tf.explore.data import ExploreData
from tests.images import CLASSES, picture

NASTY = (
    '</script><script>document.title="broken"</script>.png',
    '<img src="x" onerror="document.title=1">.png',
    'a "quoted", & comma.png',
    "Größe 試料 µ.png",
    "{{ title }} <!-- .png",
)


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_data(count: int = 60, title: str = "An embedding", seed: int = 0) -> ExploreData:
    """Images of three classes whose features lie in three heaps."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    thumbnails = [jpeg(picture(CLASSES[kind], 64, rng)) for kind in kinds]
    features = rng.normal(size=(3, 16))[kinds] * 1.5 + rng.normal(size=(count, 16))
    names = [f"{CLASSES[kind]}/image_{index:03d}.png" for index, kind in enumerate(kinds)]
    names[: len(NASTY)] = NASTY[: len(names)]
    columns = {
        "label": [CLASSES[kind] for kind in kinds],
        "split": [("train", "test", "")[index % 5 // 2] for index in range(count)],
        "cluster": [str(index % 25) for index in range(count)],
        "depth, m": [f"{number:.3f}" for number in rng.uniform(-2, 9, count)],
    }
    facts = {"made by": 'a <b>test</b> & "friends"'}
    return ExploreData(title, names, thumbnails, features.astype(np.float32), columns, facts)


def pixels(jpeg_bytes: bytes) -> np.ndarray:
    """float64 [H, W, 3]."""
    with Image.open(io.BytesIO(jpeg_bytes)) as image:
        return np.asarray(image.convert("RGB"), np.float64)
