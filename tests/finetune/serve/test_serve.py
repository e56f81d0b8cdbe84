"""The local page, used as a browser, a script and a stranger would."""

import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import Declaration
from data_prep.manifest.scan import scan_folder
from data_prep.reading.uploads import Upload, read_upload
from finetune.predict import PredictSettings, list_images, predict_images
from finetune.serve.answer import CACHE, Classify, open_neighbors, upload_options
from finetune.serve.http_server import HttpServer
from finetune.serve.serve import ServeLimits, make_service
from finetune.trained import Trained, open_trained
from tests.chromium import look_at
from tests.finetune.networks import write_run
from tests.images import CLASSES, make_folder

LIMITS = ServeLimits(max_megabytes=0.1, timeout=2)
_NASTY = '<img src=x onerror=alert(1)>"../../e.png'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serve")
    folder = write_run(root / "run", CLASSES)
    images = scan_folder(make_folder(root / "images", per_class=4, size=24))
    Manifest(tuple(images.records), images.root).save(folder / "manifest.csv")
    return folder


@pytest.fixture(scope="module")
def trained(run: Path) -> Trained:
    return open_trained(str(run))


@pytest.fixture(scope="module")
def server(trained: Trained) -> Iterator[HttpServer]:
    server = make_service(trained, open_neighbors(trained), "127.0.0.1", 0, LIMITS)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.close()


def ask(
    server: HttpServer, path: str, content: bytes | None = None, name: str = "a.png",
    method: str = "", **headers: str,
) -> tuple[int, dict[str, str], str]:  # fmt: skip
    """Status, headers and text of a request; with content, of a form with one file."""
    body = None
    if content is not None:
        quoted = name.replace('"', "%22")
        head = f'--XX\r\nContent-Disposition: form-data; name="image"; filename="{quoted}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--XX--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=XX", **headers}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    method = method or ("GET" if body is None else "POST")
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), text


def first_image(run: Path) -> Path:
    return Path(Manifest.load(run / "manifest.csv").files()[0])


def test_the_answer_is_that_of_predict_and_the_image_itself_is_its_nearest_neighbor(
    run: Path, trained: Trained, server: HttpServer, tmp_path: Path
) -> None:
    file = first_image(run)
    status, _, text = ask(server, "/predict", file.read_bytes(), "mine.png")
    answer = json.loads(text)
    assert (status, answer["name"]) == (200, "mine.png")
    listed = list_images("", str(run / "manifest.csv"), Declaration())
    predict_images(trained, listed, tmp_path / "p.csv", PredictSettings(batch_size=4))
    lines = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    (row,) = [dict(zip(lines[0], line, strict=True)) for line in lines if line[0] == str(file)]
    scores = {row[f"class_{k}"]: float(row[f"score_{k}"]) for k in (1, 2, 3)}
    assert answer["scores"] == pytest.approx(scores, abs=1e-6)
    assert answer["predicted"] == row["predicted"]
    nearest = answer["neighbours"][0]
    assert (nearest["name"], nearest["label"]) == (file.name, file.parent.name)
    assert nearest["similarity"] == pytest.approx(1, abs=1e-5)
    similarities = [n["similarity"] for n in answer["neighbours"]]
    assert len(similarities) == 8
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.parametrize("path", ["/", "/predict"])
@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"\0" * 110_000, 413, r"the file is larger than 0\.1 MB"),
        (b"\0" * 3_000_000, 413, r"the file is larger than 0\.1 MB"),
        (b"not an image at all", 415, r"a\.png: .*(unknown|format|no image|not)"),
        (b"", 415, r"a\.png: empty file"),
    ],
    ids=["too large", "far too large", "no image", "empty"],
)
def test_what_is_no_usable_image_is_said_in_one_line(
    server: HttpServer, path: str, content: bytes, status: int, said: str
) -> None:
    found, headers, text = ask(server, path, content)
    assert found == status
    if path == "/predict":
        assert headers["Content-Type"] == "application/json"
        (message,) = json.loads(text).values()
        assert "\n" not in message
    else:
        (message,) = re.findall(r'role="alert">(.*)</p>', text)
    assert re.search(said, message)
    assert "Traceback" not in text


def test_a_truncated_image_is_refused_and_the_next_one_answered(
    run: Path, server: HttpServer
) -> None:
    whole = first_image(run).read_bytes()
    status, _, text = ask(server, "/predict", whole[: len(whole) // 2])
    assert status == 415
    assert "truncated" in json.loads(text)["error"]
    assert ask(server, "/predict", whole)[0] == 200


def test_a_small_file_that_would_be_a_huge_picture_is_refused(server: HttpServer) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 4_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    status, _, text = ask(server, "/predict", buffer.getvalue())
    assert status == 415
    assert "30000 x 4000 pixels, more than the 50000000" in json.loads(text)["error"]


def bomb(rows: int, columns: int) -> bytes:
    """An NPZ of zeros: a few kB that unpack to a byte a pixel."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, np.zeros((rows, columns), np.uint8))
    return buffer.getvalue()


def test_what_unpacks_to_more_than_is_decoded_here_is_refused_at_once(server: HttpServer) -> None:
    picture = io.BytesIO()
    Image.new("1", (9_990, 9_990)).save(picture, "PNG")
    archive = bomb(9_990, 9_990)
    for content in (picture.getvalue(), archive):
        assert len(content) < 104_000
        began = time.monotonic()
        status, _, text = ask(server, "/predict", content)
        assert (status, time.monotonic() - began < 2) == (415, True)
        assert "9990" in text
        assert "--" not in text


def test_what_is_wrong_is_said_without_flags(server: HttpServer) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.full((8, 8), np.nan, np.float32))
    status, _, text = ask(server, "/predict", buffer.getvalue())
    assert (status, "not finite" in text, "--" in text) == (415, True, False)
    buffer = io.BytesIO()
    np.save(buffer, np.full((8, 8), 3, np.int16))
    status, _, text = ask(server, "/predict", buffer.getvalue())
    assert (status, "no natural range" in text, "--" in text) == (415, True, False)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def test_connections_that_never_finish_are_closed_and_hinder_nobody(
    run: Path, server: HttpServer, stack: contextlib.ExitStack
) -> None:
    body = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nab"
    beginnings = [b"", b"GET / HT", body]
    address = ("127.0.0.1", server.port)
    sockets = [stack.enter_context(socket.create_connection(address)) for _ in range(20)]
    for number, each in enumerate(sockets):
        each.sendall(beginnings[number % 3])
    began = time.monotonic()
    assert ask(server, "/predict", first_image(run).read_bytes())[0] == 200
    assert time.monotonic() - began < LIMITS.timeout
    dripping = sockets[2]
    closed = 0
    while closed < len(sockets) and time.monotonic() - began < 4 * LIMITS.timeout:
        with contextlib.suppress(OSError):
            dripping.sendall(b"x")
        time.sleep(0.3)
        closed = sum(map(is_closed, sockets))
    assert closed == len(sockets)
    assert ask(server, "/")[0] == 200


def is_closed(end: socket.socket) -> bool:
    """Whether the other side has hung up."""
    end.setblocking(False)
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_headers_tell_no_version_and_bad_requests_get_a_page(server: HttpServer) -> None:
    for path, headers in (("/", {}), ("/predict", {"X": "a" * 20_000})):
        _, answered, text = ask(server, path, **headers)
        assert "Server" not in answered
        assert answered["X-Content-Type-Options"] == "nosniff"
        assert "waitress" not in text.lower()
    assert ask(server, "/", method="BREW")[0] == 404


def test_an_image_is_answered_at_a_time(run: Path, trained: Trained) -> None:
    now, most = [], []

    def slow(content: bytes, *, thumbnail: bool = False) -> Upload:
        now.append(1)
        most.append(len(now))
        time.sleep(0.1)
        now.pop()
        return read_upload(content, upload_options(trained), thumbnail=thumbnail)

    classify = Classify(trained, open_neighbors(trained), read=slow)
    content = first_image(run).read_bytes()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: classify("a.png", content), range(4)))
    assert most == [1] * 4


def test_an_image_that_hangs_its_reader_is_refused_and_the_next_one_answered(
    run: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_format.py").write_text(
        "from data_prep.reading.formats.arrays import register_format\n"
        "register_format(['.hang'], b'HANG', lambda source, reading: max(iter(int, 1)))\n"
    )
    monkeypatch.setenv("SIMCLR_TF_EXTENSIONS", "hanging_format")
    monkeypatch.syspath_prepend(tmp_path)
    limits = ServeLimits(read_seconds=1.0)
    server = make_service(trained, open_neighbors(trained), "127.0.0.1", 0, limits)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    whole = first_image(run).read_bytes()
    for path in ("/predict", "/"):
        status, _, text = ask(server, path, b"HANG".ljust(100))
        assert (status, "a.png: takes more than 1 s to read" in text) == (415, True)
        assert ask(server, path, whole)[0] == 200
    server.shutdown()
    thread.join()
    server.close()


def test_paths_lead_nowhere(server: HttpServer) -> None:
    for path in ("/../run/manifest.csv", "/%2e%2e/manifest.csv", "/templates/serve.html", "//etc"):
        status, _, text = ask(server, path)
        assert status == 404
        assert "path," not in text
    assert ask(server, "/", method="DELETE")[0] == 404


def test_a_request_for_another_host_is_refused(server: HttpServer) -> None:
    """As a web site would send whose name was made to mean 127.0.0.1."""
    assert ask(server, "/", Host="evil.example")[0] == 400
    assert ask(server, "/", Host=f"localhost:{server.port}")[0] == 200


def test_names_are_shown_as_text_and_nothing_is_written(
    run: Path, server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = {p: p.stat().st_mtime_ns for p in run.parent.rglob("*")}
    status, headers, text = ask(server, "/", first_image(run).read_bytes(), _NASTY)
    assert status == 200
    assert "<img src=x" not in text
    assert "../" not in text
    assert {p: p.stat().st_mtime_ns for p in run.parent.rglob("*")} == before
    assert not list(tmp_path.iterdir())
    policy = headers["Content-Security-Policy"]
    (nonce,) = re.findall(r"script-src 'nonce-([^']+)'", policy)
    assert f'<script nonce="{nonce}">' in text
    assert nonce not in ask(server, "/")[2]


def test_the_page_is_readable_at_every_width(run: Path, server: HttpServer, tmp_path: Path) -> None:
    """In a browser, with the answer and its neighbours."""
    page = tmp_path / "page.html"
    page.write_text(ask(server, "/", first_image(run).read_bytes(), "core_12.png")[2])
    for seen in look_at(page, tmp_path):
        assert seen["console"] == []
        assert seen["content"] <= seen["width"]
        assert seen["overlaps"] == []
        assert len(seen["images"]) == 9
        assert all(dots > 0 for dots, _, _ in seen["images"])
        assert "core_12.png" in seen["text"]


def test_embeddings_are_kept_for_as_long_as_images_and_weights_are_the_same(
    run: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_neighbors(trained)
    assert (run / CACHE).is_file()
    calls = []
    monkeypatch.setattr(
        "finetune.serve.answer._embed", lambda *a: calls.append(a) or first.embeddings
    )
    again = open_neighbors(trained)
    np.testing.assert_array_equal(again.embeddings, first.embeddings)
    assert calls == []
    kernel = trained.network.supervised_head.dense.kernel  # type: ignore[union-attr]
    old = kernel.numpy()
    kernel.assign(old + 1)
    open_neighbors(trained)
    assert len(calls) == 1
    kernel.assign(old)
