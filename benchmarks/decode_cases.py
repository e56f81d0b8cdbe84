"""Whether every way to read an image gives the pixels that a collection of files is known to hold.

    python benchmarks/decode_cases.py --cases=FOLDER

`FOLDER/cases.json` lists files with `name`, `file`, `channels` (null: its own) and `reading`;
`NAME.expect.npz` holds the pixels, float32 [H, W, C] in [0, 1]. The table says by how much at most
each way is off:

- header, check: nothing but whether height, width and channels are right;
- reader, graph: of pixels;
- predict, serve: of the probabilities of a network with random weights, from those for the known
  pixels; serve is asked over HTTP;
- onnx, saved: of the probabilities of exported models fed what the reader gives, from predict.

A refusal is shown as `refused`, with its text below the table.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.check.files import examine
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import declaration_of
from data_prep.reading.headers import in_short, read_header
from data_prep.reading.images import read_image
from data_prep.reading.training_files import TrainingFiles
from data_prep.sources.decoding import decode_file
from finetune.export.export import ExportRequest, export
from finetune.sections import Format
from finetune.serve.answer import open_neighbors
from finetune.serve.http_server import HttpServer
from finetune.serve.serve import ServeLimits, make_service
from finetune.trained import BatchScorer, Trained, open_trained
from simclr_tf.checkpoints.preprocessing import Preprocessing, write_record
from simclr_tf.checkpoints.write import write_model
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.models import SimCLREncoder, SimCLRModel

SIDE = 32
CLASSES = ("a", "b", "c", "d")
WAYS = ("header", "check", "reader", "graph", "predict", "serve", "onnx", "saved")
PIXELS, LOSSY, SCORES = 0.002, 0.03, 1e-3
FORMS: dict[str, Format] = {"onnx": "onnx", "saved": "saved_model"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--only", default="", help="begin of the names of the cases")
    arguments = parser.parse_args()
    cases = json.loads((arguments.cases / "cases.json").read_text(encoding="utf-8"))
    cases = [case for case in cases if case["name"].startswith(arguments.only)]
    with tempfile.TemporaryDirectory() as folder:
        networks = Networks(Path(folder))
        rows = [measure(arguments.cases, case, networks) for case in cases]
        networks.close()
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}s}" + "".join(f"{way:>9s}" for way in WAYS))
    for row in rows:
        print(f"{row.name:{width}s}" + "".join(f"{row.cell(way):>9s}" for way in WAYS))
    wrong = [row for row in rows if not row.right()]
    for row in rows:
        for way, text in row.refused.items():
            print(f"{row.name}, {way}: {text}")
    print(f"{len(rows) - len(wrong)} of {len(rows)} right; others: {[row.name for row in wrong]}")
    return bool(wrong)


@dataclass
class Row:
    """What came of a file.

    Attributes:
        name: Of the case.
        tolerance: Of its pixels.
        off: Way -> how far it is off.
        refused: Way -> what it said.
    """

    name: str
    tolerance: float
    off: dict[str, float]
    refused: dict[str, str]

    def cell(self, way: str) -> str:
        """The cell of the table."""
        if way in self.refused:
            return "refused"
        if way in ("header", "check"):
            return "right" if self.off[way] == 0 else "wrong"
        return f"{self.off[way]:.1e}"

    def right(self) -> bool:
        """Whether nothing is off by more than its limit."""
        if self.refused:
            return False
        limits = {"header": 0.0, "check": 0.0, "reader": self.tolerance, "graph": self.tolerance}
        lossy = self.tolerance > PIXELS
        return all(
            self.off[way] <= limits.get(way, 0.1 if lossy and way != "onnx" else SCORES)
            for way in WAYS
        )


class Networks:
    """Classifiers of one and of three channels, and what is exported of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trained: dict[int, Trained] = {}
        self._exported: dict[tuple[int, bool, str], Callable[..., np.ndarray]] = {}
        self._servers: dict[tuple[int, str], HttpServer] = {}

    def trained(self, channels: int) -> Trained:
        """The classifier of images of so many channels."""
        if channels not in self._trained:
            folder = self._folder / str(channels)
            write_network(folder, channels)
            self._trained[channels] = open_trained(str(folder))
        return self._trained[channels]

    def exported(self, channels: int, eight_bit: bool, way: str) -> Callable[..., np.ndarray]:
        """What gives the probabilities of an exported model."""
        key = channels, eight_bit, way
        if key not in self._exported:
            files = TrainingFiles((8,) if eight_bit else (16,), (channels,))
            path = self._folder / f"{channels} {eight_bit}.{way}"
            request = ExportRequest(FORMS[way], "float_image")
            export(replace(self.trained(channels), files=files), path, request)
            self._exported[key] = loaded(path, way)
        return self._exported[key]

    def service(self, channels: int, images: Manifest) -> int:
        """The port of a service for a network whose images are declared like these."""
        key = channels, images.records[0].reading
        if key not in self._servers:
            reading = vars(declaration_of(images))
            trained = replace(self.trained(channels), reading=reading)
            server = make_service(trained, open_neighbors(trained), "127.0.0.1", 0, ServeLimits())
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers[key] = server
        return self._servers[key].port

    def close(self) -> None:
        """Ends the services."""
        for server in self._servers.values():
            server.shutdown()
            server.close()


def write_network(folder: Path, channels: int) -> None:
    """A network whose every weight is drawn, so that its scores depend on all pixels."""
    keras.utils.set_random_seed(0)
    record = Preprocessing(SIDE, channels, CLASSES).record()
    encoder = SimCLREncoder(
        18, width_multiplier=0.125, cifar_stem=True, image_channels=channels, preprocessing=record
    )
    model = SimCLRModel(encoder, len(CLASSES))
    model.build()
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.ndim == 1:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    write_model(model, folder, "tf1")
    write_record(folder, record)


def loaded(path: Path, way: str) -> Callable[..., np.ndarray]:
    """The probabilities of an exported model for an image, float32 in [0, 1]."""
    if way == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda image: session.run(["probabilities"], {"images": image})[0]
    model = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda image: model(images=tf.constant(image))["probabilities"].numpy()


def measure(folder: Path, case: dict[str, Any], networks: Networks) -> Row:
    """Reads a file in all ways."""
    file, reading = str(folder / case["file"]), case["reading"]
    with np.load(folder / f"{case['name']}.expect.npz") as stored:
        expected = stored["image"]
    channels = expected.shape[2]
    lossy = Path(file).suffix in {".jpg", ".webp"} or "jpeg" in case["name"]
    row = Row(case["name"], LOSSY if lossy else PIXELS, {}, {})
    record = Record(Path(file).name, label=CLASSES[0], reading=reading)
    images = Manifest((record,), str(folder))
    trained = networks.trained(channels)

    def off(way: str, found: Callable[[], Any], known: Any) -> Any:
        try:
            what = found()
        except (UserError, tf.errors.OpError, RuntimeError) as error:
            row.refused[way] = in_short(error)
            return None
        if way in {"header", "check"}:
            row.off[way] = float(
                what[:2] != known[:2] or (case["channels"] is None and what != known)
            )
        else:
            row.off[way] = float(np.abs(np.asarray(what, np.float64) - known).max())
        return what

    def header() -> tuple[int, ...]:
        facts = read_header(file, reading)
        return facts.height, facts.width, facts.channels

    def check() -> tuple[int, ...]:
        (facts,) = examine(images).facts
        if facts.problem:
            raise UserError(facts.problem)
        return facts.height, facts.width, facts.channels

    def graph() -> np.ndarray:
        facts = read_header(file, reading)
        kind, dtype = int(facts.decoder), tf.uint8 if facts.bits == 8 else tf.float32
        return in_unit(
            decode_file(tf.constant(file), kind, [kind], channels, dtype, reading).numpy()
        )

    off("header", header, expected.shape)
    off("check", check, expected.shape)
    read = off("reader", lambda: in_unit(read_image(file, channels, reading)), expected)
    off("graph", graph, expected)
    eight_bit = not row.refused and read_image(file, channels, reading).dtype == np.uint8
    known = scores(trained, np.rint(expected * 255).astype(np.uint8) if eight_bit else expected)
    predicted = off("predict", lambda: BatchScorer(trained, 1).scores(images), known)
    off("serve", lambda: served(networks.service(channels, images), Path(file)), known)
    for way in FORMS:
        if read is None or predicted is None:
            row.refused[way] = "there is nothing to compare with"
            continue
        run = networks.exported(channels, eight_bit, way)
        off(way, lambda run=run: run(read), predicted)
    return row


def in_unit(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels


def scores(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    """Probabilities of pixels in memory."""
    seen = to_float(trained.preprocessing.inputs(tf.constant(pixels), trained.crops))
    return softmax(trained.forward(seen)["logits"].numpy())


def served(port: int, file: Path) -> np.ndarray:
    """Probabilities that a service answers an upload with."""
    head = '--XX\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = head.encode() + file.read_bytes() + b"\r\n--XX--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    connection.request("POST", "/predict", body, headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    if "error" in answer:
        raise UserError(answer["error"])
    return np.array([[answer["scores"][name] for name in CLASSES]])


if __name__ == "__main__":
    sys.exit(main())
