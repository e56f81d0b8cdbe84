"""Depth models that are formulas, behind the same functions as trained ones.

The depth of a pixel is `offset + gain * (1 - value)`; a folder holds `fake.json` with offset and
gain by case ("" = all). Targets are 16-bit PNG in hundredths.
"""

import json
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.depth import trained
from simclr_tf.checkpoints.preprocessing import write_record
from simclr_tf.checkpoints.write import write_model
from tests.finetune.networks import network

SIZE = (16, 12)
FORMULAS = {"case_1": (100.0, 50.0), "case_2": (120.0, 90.0)}


class FakeModel:
    """As `trained.DepthModel`."""

    kind, unit, depth_min, depth_max, image_size = "unet", "nm", 100.0, 210.0, SIZE

    def __init__(self, case: str, offset: float, gain: float) -> None:
        self.case, self._offset, self._gain = case, offset, gain
        self.facts = types.SimpleNamespace(reading={}, training_files={})
        self.calls: list[int] = []

    def predict(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        self.calls.append(len(images))
        return (self._offset + self._gain * (1 - images[..., 0])).astype(np.float32)


class FakeTranslator:
    """As `trained.Translator`; real images are darker by half."""

    @staticmethod
    def load(folder: str) -> "FakeTranslator":
        return FakeTranslator()

    def translate(self, images: np.ndarray) -> np.ndarray:
        return np.clip(2 * images, 0, 1)


def load_fakes(folder: str) -> dict[str, FakeModel]:
    """As `trained.load_depth_models`."""
    file = Path(folder) / "fake.json"
    if not file.exists():
        raise UserError(f"{folder}: holds no model")
    formulas = json.loads(file.read_text())
    return {case: FakeModel(case, *formula) for case, formula in formulas.items()}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the fakes in the place of trained models."""
    monkeypatch.setattr(trained, "load_depth_models", load_fakes)
    monkeypatch.setattr(trained, "Translator", FakeTranslator)


def write_models(folder: Path, formulas: dict[str, tuple[float, float]]) -> Path:
    folder.mkdir()
    (folder / "fake.json").write_text(json.dumps(formulas))
    return folder


def write_holes(
    folder: Path,
    per_case: int = 6,
    *,
    noise: float = 1.0,
    dim: float = 1.0,
    split: str = "",
    targets: bool = True,
) -> Manifest:
    """SEM images and 16-bit targets that the formulas explain but for noise (sigma, in nm).

    Two images in a row are of one group. Saved as `manifest.csv`, which names the targets or not.
    """
    rng = np.random.default_rng(0)
    records = []
    for case, (offset, gain) in FORMULAS.items():
        (folder / "sem" / case).mkdir(parents=True, exist_ok=True)
        (folder / "depth" / case).mkdir(parents=True, exist_ok=True)
        for number in range(per_case):
            name = f"{case}/{case}_{number:03d}.png"
            y, x = np.mgrid[: SIZE[0], : SIZE[1]]
            hole = ((y - 8) / 6) ** 2 + ((x - 6) / 4.5) ** 2 < 1
            value = np.where(hole, 60 + rng.integers(0, 60), 230) + rng.integers(-8, 8, SIZE)
            pixels = np.rint(value * dim).astype(np.uint8)
            depth = offset + gain * (1 - value / 255) + rng.normal(0, noise, SIZE)
            Image.fromarray(pixels).save(folder / "sem" / name)
            levels = np.rint(100 * depth).astype(np.uint16)
            Image.fromarray(levels).save(folder / "depth" / name)
            records.append(
                Record(
                    f"sem/{name}", split=split, group=f"{case}_site_{number // 2}", case=case,
                    target=f"depth/{name}" * targets, target_scale="0.01" * targets,
                )
            )  # fmt: skip
    manifest = Manifest(tuple(records), str(folder))
    manifest.save(folder / "manifest.csv")
    return manifest


def write_router(folder: Path, cases: tuple[str, ...], images: np.ndarray) -> Path:
    """An untrained classifier whose mean logits over images [n, 16, 16, 1] are all 0.

    So it sends the images here and there.
    """
    model = network(cases, channels=1)
    logits = np.asarray(model(images)["logits_sup"])
    bias = model.supervised_head.dense.bias  # type: ignore[union-attr]
    bias.assign_sub(logits.mean(axis=0))
    write_model(model, folder, "tf1")
    write_record(folder, model.encoder.preprocessing)
    return folder
