"""Trained depth networks as they are handed out: a folder with `depth.json` and Keras files.

depth.json        kind, direction, case, unit, depth_min, depth_max, image_size, reading, ...
generator.keras   images [B, H, W, 1] in [0, 1] -> depth, 0 = depth_min and 1 = depth_max;
                  with direction "real": -> images of the real microscope in [0, 1]
reverse.keras     cyclegan: the other way round
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.read_options import carried
from data_prep.storage import AGAIN, read_object
from finetune.depth.settings import DEPTH, REAL
from simclr_tf.checkpoints.keras_file import open_keras_file

DEPTH_FILE, GENERATOR, REVERSE = "depth.json", "generator.keras", "reverse.keras"
_CASE = "case_"


@dataclass(frozen=True)
class DepthFacts:
    """The contents of `depth.json`.

    Attributes:
        kind: `autoencoder`, `unet` or `cyclegan`.
        direction: `depth`, or `real` for translation to images of the real microscope.
        case: That was trained on; empty = all.
        unit: Of depth; empty = not said.
        depth_min: Depth that the network calls 0, in physical units.
        depth_max: Depth that it calls 1.
        image_size: Height and width of images and maps.
        reading: Fields of `Declaration`: how files become images.
        epoch: Whose weights these are.
        training_files: Properties of the training files, see `data_prep.reading.training_files`.
    """

    kind: str
    direction: str
    case: str
    unit: str
    depth_min: float
    depth_max: float
    image_size: tuple[int, int]
    reading: dict[str, Any] = field(default_factory=dict)
    epoch: float = 0.0
    training_files: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The facts as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def load(folder: str | Path) -> "DepthFacts":
        """Reads `depth.json`.

        Raises:
            UserError: The file is missing or invalid.
        """
        file = Path(folder) / DEPTH_FILE
        try:
            facts = read_object(file, AGAIN)
            reading = carried(facts.get("reading", {}))
            size = tuple(facts["image_size"])
            return DepthFacts(**{**facts, "image_size": size, "reading": reading})
        except FileNotFoundError:
            raise UserError(
                f"{folder}: holds no {DEPTH_FILE}; give the --output of a complete "
                "simclr-depth-train"
            ) from None
        except UserError:
            raise
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file}: cannot be read: {error}") from None


class _Network:
    """A network of images of one size, run in batches.

    Args:
        model: The network.
        size: Height and width of its images.
    """

    def __init__(self, model: keras.Model, size: tuple[int, int]) -> None:
        self._size = size
        signature = [tf.TensorSpec([None, *size, 1], tf.float32)]
        self._forward = tf.function(
            lambda images: model(images, training=False), input_signature=signature
        )

    def run(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """float32 [n, H, W, 1] of images [n, H, W, 1].

        Raises:
            UserError: They are of another size.
        """
        if images.shape[1:] != (*self._size, 1):
            raise UserError(
                f"the network takes images of {self._size[0]}x{self._size[1]} pixels and one "
                f"channel, these are {'x'.join(map(str, images.shape[1:]))}"
            )
        starts = range(0, len(images), batch_size)
        parts = [self._forward(images[i : i + batch_size].astype(np.float32)) for i in starts]
        empty = np.zeros((0, *self._size, 1), np.float32)
        return np.concatenate([empty, *(part.numpy() for part in parts)])


def _open(file: Path, facts: DepthFacts) -> _Network:
    return _Network(open_keras_file(file), facts.image_size)


class DepthModel:
    """A network that makes depth maps.

    Attributes:
        facts: All that `depth.json` says.
    """

    def __init__(self, facts: DepthFacts, network: _Network) -> None:
        self.facts, self._network = facts, network

    @staticmethod
    def load(folder: str | Path) -> "DepthModel":
        """Opens what `simclr-depth-train` has left in a folder.

        Raises:
            UserError: There is none, or it makes no depth maps.
        """
        facts = DepthFacts.load(folder)
        if facts.direction != DEPTH:
            raise UserError(
                f"{folder}: translates to images of the real microscope, it makes no depth maps"
            )
        return DepthModel(facts, _open(Path(folder) / GENERATOR, facts))

    @staticmethod
    def of(facts: DepthFacts, network: keras.Model) -> "DepthModel":
        """The model of a network that is loaded already."""
        return DepthModel(facts, _Network(network, facts.image_size))

    @property
    def kind(self) -> str:
        """Kind of network: `autoencoder`, `unet` or `cyclegan`."""
        return self.facts.kind

    @property
    def case(self) -> str:
        """The case that it was trained on; empty = all."""
        return self.facts.case

    @property
    def unit(self) -> str:
        """Unit of depth; empty = not said."""
        return self.facts.unit

    @property
    def depth_min(self) -> float:
        """Least depth of the training maps, in physical units."""
        return self.facts.depth_min

    @property
    def depth_max(self) -> float:
        """Greatest depth of the training maps, in physical units."""
        return self.facts.depth_max

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of images and maps."""
        return self.facts.image_size

    def predict(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Depth maps, float32 [n, H, W] in physical units.

        Args:
            images: [n, H, W, 1] in [0, 1].
            batch_size: Images at a time.

        Raises:
            UserError: Images of another size.
        """
        normalized = self._network.run(images, batch_size)[..., 0]
        return in_units(normalized, (self.depth_min, self.depth_max))


class Translator:
    """Makes images of the real microscope look like simulated ones.

    Attributes:
        facts: All that `depth.json` says.
    """

    def __init__(self, facts: DepthFacts, network: _Network) -> None:
        self.facts, self._network = facts, network

    @staticmethod
    def load(folder: str | Path) -> "Translator":
        """Opens what `simclr-depth-train --direction=real` has left in a folder.

        Raises:
            UserError: There is none, or it makes depth maps.
        """
        facts = DepthFacts.load(folder)
        if facts.direction != REAL:
            raise UserError(f"{folder}: makes depth maps; train a translator: --direction=real")
        return Translator(facts, _open(Path(folder) / REVERSE, facts))

    def translate(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Images [n, H, W, 1] of the real microscope -> simulated ones, float32 in [0, 1].

        Raises:
            UserError: Images of another size.
        """
        return self._network.run(images, batch_size)


def in_units(normalized: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Depth on the network's scale to physical units, float32 of the same shape.

    Args:
        normalized: 0 = the least depth, 1 = the greatest; both may be exceeded.
        limits: These two.
    """
    low, high = limits
    return (low + normalized * np.float64(high - low)).astype(np.float32)


def load_depth_models(folder: str | Path) -> dict[str, DepthModel]:
    """The networks of a folder by their case: that of one run, or those of `--per_case`.

    Returns:
        A single network for all cases has the key "".

    Raises:
        UserError: There are none, or two for one case.
    """
    folder = Path(folder)
    if (folder / DEPTH_FILE).is_file():
        model = DepthModel.load(folder)
        return {model.case: model}
    models: dict[str, DepthModel] = {}
    for inner in sorted(folder.glob(f"{_CASE}*")):
        model = DepthModel.load(inner)
        if model.case in models:
            raise UserError(f"{folder}: two networks for the case {model.case!r}")
        models[model.case] = model
    if not models:
        raise UserError(
            f"{folder}: holds neither {DEPTH_FILE} nor folders {_CASE}<case>; give the --output of "
            "a complete simclr-depth-train"
        )
    return models
