"""A storage bucket on the loopback interface, which fails in whatever way a test asks for."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "simclr-checkpoints"


def release(prefix: str, size: int = 5000) -> dict[str, bytes]:
    """The objects of a released checkpoint: what is needed, and what lies beside it."""
    data = bytes(i * 7 % 251 for i in range(size))
    names = {
        "": b"",  # some tools leave an empty object that stands for the folder
        "checkpoint": b'model_checkpoint_path: "model.ckpt-9"\n',
        "events.out.tfevents.1": b"curves",
        "graph.pbtxt": b"graph",
        "hub/variables/variables.data-00000-of-00001": data,
        "hub/variables/variables.index": b"index",
        "model.ckpt-9.data-00000-of-00001": data,
        "model.ckpt-9.index": b"index",
        "model.ckpt-9.meta": b"meta",
    }
    return {prefix + name: content for name, content in names.items()}


WANTED = ("checkpoint", "model.ckpt-9.data-00000-of-00001", "model.ckpt-9.index")
DATA = WANTED[1]


@dataclass
class Bucket:
    """What the server has, how it misbehaves, and what it was asked.

    Attributes:
        objects: Content by name.
        page_size: Objects on a page of the listing.
        break_after: Bytes of a response's body after which it breaks off; None for never.
        breaks: How many more responses break off so.
        ignores_range: Whether every answer is the whole object.
        corrupt: Names of the objects of which the last byte is sent wrong.
        wrong_end: What is sent in place of that byte.
        refusals: Status codes of the next answers to requests for objects.
        has_md5: Whether the listing tells checksums.
        listings: Page tokens of the requests for the listing.
        media: Name and Range header of the requests for objects.
    """

    objects: dict[str, bytes]
    page_size: int = 1000
    break_after: int | None = None
    breaks: int = 0
    ignores_range: bool = False
    corrupt: set[str] = field(default_factory=set)
    wrong_end: bytes = b"?"
    refusals: list[int] = field(default_factory=list)
    has_md5: bool = True
    base_url: str = ""
    listings: list[str] = field(default_factory=list)
    media: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.listings) + len(self.media)

    def ranges_of(self, name: str) -> list[str | None]:
        """Range headers of the requests for a file, in their order."""
        return [asked for path, asked in self.media if path.endswith(f"/{name}")]

    def page(self, prefix: str, token: str) -> dict[str, Any]:
        names = sorted(name for name in self.objects if name.startswith(prefix))
        start = int(token or 0)
        end = start + self.page_size
        items = [self._item(name) for name in names[start:end]]
        page: dict[str, Any] = {"items": items} if items else {}
        return page | ({"nextPageToken": str(end)} if end < len(names) else {})

    def _item(self, name: str) -> dict[str, str]:
        content = self.objects[name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        item = {"name": name, "size": str(len(content))}
        return item | ({"md5Hash": md5} if self.has_md5 else {})

    def sent(self, name: str) -> bytes:
        content = self.objects[name]
        return content[:-1] + self.wrong_end if name in self.corrupt else content


@contextmanager
def serving(bucket: Bucket) -> Iterator[Bucket]:
    """Serves a bucket while the block runs; its `base_url` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == f"/storage/v1/b/{BUCKET}/o":
                query = parse_qs(url.query)
                token = query.get("pageToken", [""])[0]
                bucket.listings.append(token)
                self._answer(200, json.dumps(bucket.page(query["prefix"][0], token)).encode())
            else:
                self._send_object(unquote(url.path).removeprefix(f"/{BUCKET}/"))

        def _send_object(self, name: str) -> None:
            asked = self.headers["Range"]
            bucket.media.append((name, asked))
            if bucket.refusals:
                self._answer(bucket.refusals.pop(0), b"no")
            elif name not in bucket.objects:
                self._answer(404, b"no")
            elif asked and not bucket.ignores_range:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                self._answer(206, bucket.sent(name)[start:], may_break=True)
            else:
                self._answer(200, bucket.sent(name), may_break=True)

        def _answer(self, status: int, body: bytes, may_break: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            limit = bucket.break_after
            if may_break and bucket.breaks and limit is not None and limit < len(body):
                bucket.breaks -= 1
                body = body[:limit]
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bucket.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
