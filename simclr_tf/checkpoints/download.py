"""Fetches a checkpoint's folder from a public Google Cloud Storage bucket, over plain HTTP.

What breaks off goes on where it stopped, also in the next process. A file gets its name only once
its size and checksum are right, and `complete.json` is written after all of them.
"""

import base64
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

from data_prep.errors import UserError
from data_prep.phrases import format_seconds
from data_prep.storage import put_in_place, write_text

log = logging.getLogger(__name__)

BASE_URL = "https://storage.googleapis.com"
MARKER = "complete.json"

_ATTEMPTS = 5  # in a row that bring nothing new
_BACK_OFF_SECONDS = 1.0  # before the second attempt; doubles from then on
_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 18
_SECONDS_BETWEEN_LINES = 5.0
_FORBIDDEN = set('/\\:*?"<>|')  # in names of files: separators and drives of other systems
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class RemoteFile:
    """A file in the bucket.

    Attributes:
        name: Its name within the folder.
        size: Bytes.
        md5: Checksum in base64; None for composite objects, which have none.
    """

    name: str
    size: int
    md5: str | None


class _NetworkError(Exception):
    """The other side was not reached, broke off or refused; `passing` if that may pass soon."""

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


def is_complete(folder: Path) -> bool:
    """True if a folder holds all of a checkpoint.

    If a download was begun there, every file that it listed must be there in its full size. A
    folder without such a list was filled by hand; each `.index` must have its `.data` files.
    """
    if not folder.is_dir():
        return False
    for note in (folder / MARKER, _part(folder / MARKER)):
        if note.exists():
            return _agrees(folder, note)
    return _has_checkpoint({p.relative_to(folder).as_posix() for p in folder.rglob("*")})


def fetch_folder(bucket: str, prefix: str, folder: Path, *, base_url: str = BASE_URL) -> None:
    """Downloads the weights below a prefix of a bucket.

    Args:
        bucket: Name of the bucket.
        prefix: The folder in it, with a slash at the end.
        folder: Where the files go; made if it is not there.
        base_url: Address of the storage service.

    Raises:
        UserError: The service cannot be reached or fails, or a file came with a wrong checksum.
            What was received so far is kept, apart from a wrong file, and used the next time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if is_complete(folder):
            return
        try:
            files = list_files(bucket, prefix, base_url=base_url)
            _note_plan(files, folder)
            _fetch_files(files, f"{base_url}/{bucket}/{quote(prefix)}", folder)
        except _NetworkError as error:
            raise UserError(
                f"{error}; try again later, or put the files of gs://{bucket}/{prefix} "
                f"(checkpoint, model.ckpt-*.index and model.ckpt-*.data-*) into {folder} by hand"
            ) from None
        put_in_place(_part(folder / MARKER), folder / MARKER)
    log.info("%s is complete in %s", prefix.rstrip("/"), folder)


def list_files(bucket: str, prefix: str, *, base_url: str = BASE_URL) -> list[RemoteFile]:
    """Lists the files below a prefix that are needed to read the weights."""
    files: list[RemoteFile] = []
    url = f"{base_url}/storage/v1/b/{bucket}/o"
    query = {"prefix": prefix, "fields": "items(name,size,md5Hash),nextPageToken"}
    while True:
        try:
            page = _read_json(f"{url}?{urlencode(query)}")
            for item in page.get("items", ()):
                name = item["name"].removeprefix(prefix)
                if _is_needed(name):
                    files.append(RemoteFile(name, int(item["size"]), item.get("md5Hash")))
            token = page.get("nextPageToken")
        except (ValueError, KeyError, TypeError, AttributeError):
            # A login page of the network, for instance.
            raise _NetworkError(f"{url} did not answer with a list of files") from None
        if not token:
            break
        query["pageToken"] = token
    for file in files:
        _refuse_outside(file.name)
    if not _has_checkpoint({file.name for file in files}):
        raise _NetworkError(f"{url} lists no whole checkpoint below {prefix}")
    return files


def _is_needed(name: str) -> bool:
    """True if a file is needed for the weights, or to execute a SavedModel.

    `graph.pbtxt` and `.meta` hold the graph of TF1, of no use here and large; `events.*` are curves
    for TensorBoard; `hub/`, like all sub-folders but the `variables/` of a SavedModel, holds the
    same weights a second time.
    """
    folder, _, last = name.rpartition("/")
    if not last or folder not in ("", "variables"):
        return False
    return name != "graph.pbtxt" and not name.endswith(".meta") and not name.startswith("events")


def _refuse_outside(name: str) -> None:
    """Refuses names that mean another place than a file in the folder or in its `variables/`.

    Names of this module's own files (notes, parts of downloads) are refused too.
    """
    *folders, last = name.split("/")
    own = last.startswith((".", MARKER)) or last.endswith(".part")
    if not is_plain_name(last) or own or folders not in ([], ["variables"]):
        raise UserError(f"the listing names {name!r}, which is no name of a file of a checkpoint")


def is_plain_name(name: str) -> bool:
    """True if a name is that of one file or folder on every system, as `..` and `C:x` are not."""
    return name not in ("", ".", "..") and not set(name) & _FORBIDDEN and name.isprintable()


def _has_checkpoint(names: set[str]) -> bool:
    prefixes = [name.removesuffix(".index") for name in names if name.endswith(".index")]
    return bool(prefixes) and all(_has_data(prefix, names) for prefix in prefixes)


def _has_data(prefix: str, names: set[str]) -> bool:
    pattern = re.compile(re.escape(prefix) + r"\.data-\d{5}-of-(\d{5})")
    counts = {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    return any(
        all(f"{prefix}.data-{i:05d}-of-{count:05d}" in names for i in range(count))
        for count in counts
    )


def _note_plan(files: list[RemoteFile], folder: Path) -> None:
    """Notes what has to come, so that half of it is never taken for files placed by hand."""
    (folder / MARKER).unlink(missing_ok=True)
    text = json.dumps({"files": [asdict(file) for file in files]}, indent=1)
    write_text(_part(folder / MARKER), text + "\n")


def _agrees(folder: Path, note: Path) -> bool:
    """True if all files that a note lists are there in their full sizes."""
    try:
        files = [RemoteFile(**item) for item in json.loads(note.read_text("utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(files) and all(_size(folder / file.name) == file.size for file in files)


def _fetch_files(files: list[RemoteFile], url: str, folder: Path) -> None:
    progress = _Progress(sum(file.size for file in files))
    log.info("downloading %s (%.0f MB) to %s", url, progress.total / 1e6, folder)
    for file in files:
        target, part = folder / file.name, _part(folder / file.name)
        if not _is_right(target, file):
            part.parent.mkdir(exist_ok=True)
            _refuse_links(part, folder)
            _fetch_part(file, url + quote(file.name), part, progress)
            if not _is_right(part, file):
                part.unlink()
                raise UserError(
                    f"{url}{file.name} came with a wrong checksum and was thrown away; try again"
                )
            put_in_place(part, target)
        progress.end_file(file.size)


def _refuse_links(part: Path, folder: Path) -> None:
    """Refuses to write through a link to another place."""
    if part.is_symlink() or part.parent.resolve() not in (
        folder.resolve(),
        folder.resolve() / "variables",
    ):
        raise UserError(f"{part} is a link, or lies behind one; remove it")


def _fetch_part(file: RemoteFile, url: str, part: Path, progress: "_Progress") -> None:
    """Receives a file, in as many attempts as it takes while each brings something new."""
    part.touch()
    if _size(part) > file.size:  # of another version
        os.truncate(part, 0)
    furthest, vain = _size(part), 0
    while _size(part) < file.size:
        try:
            _receive(file, url, part, progress)
        except _NetworkError as error:
            size = _size(part)
            vain = vain + 1 if size <= furthest else 1
            furthest = max(furthest, size)
            if not error.passing or vain == _ATTEMPTS:
                raise
            log.info("%s; trying again", error)
            time.sleep(_BACK_OFF_SECONDS * 2 ** (vain - 1))


def _receive(file: RemoteFile, url: str, part: Path, progress: "_Progress") -> None:
    """Appends to a part what is missing; a server that sends all of it again may do so."""
    offset = _size(part)
    with _open(url, offset) as response, open(part, "r+b") as out:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            offset = 0
        out.seek(offset)
        out.truncate()
        while out.tell() <= file.size and (chunk := _read(response, url)):
            out.write(chunk)
            progress.advance(out.tell(), len(chunk))
    if _size(part) < file.size:
        raise _NetworkError(f"{url} broke off after {_size(part)} of {file.size} bytes")


def _is_right(path: Path, file: RemoteFile) -> bool:
    """True if a file on disk has the size and, if known, the MD5 of the one in the bucket."""
    if _size(path) != file.size:
        return False
    if file.md5 is None:  # TensorFlow still checks each tensor's own checksum when it reads it
        return True
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode() == file.md5


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    """Bytes of a file; -1 if it is not there."""
    return path.stat().st_size if path.is_file() else -1


def _open(url: str, offset: int = 0) -> http.client.HTTPResponse:
    address = url.partition("?")[0]  # enough for a message
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            request, timeout=_TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        message = f"{address} answered {error.code} {error.reason}"
        raise _NetworkError(message, error.code in _PASSING_STATUS) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _NetworkError(f"could not reach {address} ({reason})") from None
    return response


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(f"{url} broke off ({error})") from None


def _read_json(url: str) -> Any:
    with _open(url) as response:
        chunks = iter(lambda: _read(response, url), b"")
        return json.loads(b"".join(chunks))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time in: the workers of a run all ask at the same moment."""
    with open(folder / ".lock", "w") as handle:
        # Windows and some network disks have no such locks; there the checksum has the last word.
        with suppress(ImportError, OSError):
            _lock(handle)
        yield


def _lock(handle: IO[str]) -> None:
    import fcntl  # not on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another process downloads to %s; waiting for it", Path(handle.name).parent)
        fcntl.flock(handle, fcntl.LOCK_EX)


class _Progress:
    """Logs every few seconds how far a download is.

    Args:
        total: Bytes of all files together.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._ended = self._received = 0
        self._began = self._last = time.monotonic()

    def advance(self, in_file: int, received: int) -> None:
        """Takes note of a chunk.

        Args:
            in_file: Bytes of the present file that are there now.
            received: Bytes of the chunk.
        """
        self._received += received
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        done = self._ended + in_file
        rate = self._received / max(now - self._began, 1e-3)
        left = format_seconds(max(self.total - done, 0) / rate)
        numbers = (done / 1e6, self.total / 1e6, rate / 1e6, left)
        log.info("%.1f of %.1f MB  %.1f MB/s  %s left", *numbers)

    def end_file(self, size: int) -> None:
        """Takes note of a file that is there whole."""
        self._ended += size
