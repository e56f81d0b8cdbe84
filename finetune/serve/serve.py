"""A small local page that says what a trained classifier sees in an image dropped on it.

    GET /          the page
    POST /         the page with the answer for the form's file `image`
    POST /predict  the same as JSON

Uploads stay in memory; nothing is written. Meant for the user's own machine: it knows no accounts.
"""

import io
import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import jinja2
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)
from werkzeug.wrappers import Request, Response

from data_prep.errors import UserError
from data_prep.reading.limits import ReadLimits
from data_prep.reading.reader_process import ReaderBudget, ReaderProcess, ReaderUnavailableError
from finetune.sections import UploadLimits
from finetune.serve.answer import Answer, Classify, Neighbors, upload_options
from finetune.serve.http_server import HttpServer
from finetune.trained import Trained

log = logging.getLogger(__name__)

_MEBIBYTE = 2**20
_COPIES = 8  # memory of decoding over that of the stored values: intensity rules count in float64
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")

StartResponse = Callable[..., Any]


class _InMemory(Request):
    """A request whose files never touch the disk."""

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        return io.BytesIO()


class Service:
    """The WSGI application.

    Args:
        classify: Answers.
        title: Of the page.
        max_megabytes: Largest upload.
        trusted_hosts: Names that a request may come to; empty = all. It keeps other web sites that
            the user looks at from reaching a service on their own machine.
    """

    def __init__(
        self,
        classify: Classify,
        title: str,
        max_megabytes: float,
        trusted_hosts: tuple[str, ...] = (),
    ) -> None:
        self._classify, self._title, self._megabytes = classify, title, max_megabytes
        self._hosts = trusted_hosts
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("finetune", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        self._template = environment.get_template("serve.html")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request."""
        request = _InMemory(environ)
        request.max_content_length = self.max_body
        request.trusted_hosts = list(self._hosts) or None
        response = self._respond(request)
        # Nothing of who asked.
        log.info("%s %s", request.method, response.status_code)
        return response(environ, start_response)

    @property
    def max_body(self) -> int:
        """Most bytes of a request: a little more than the file, for its name and the form."""
        return int(self._megabytes * _MEBIBYTE) + 4096

    def refuse(self, path: str, code: int) -> Response:
        """Answers a request that is malformed or too large."""
        said = (
            self._too_large
            if code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            else ("this is no request that can be answered")
        )
        return _json({"error": said}, code) if path == "/predict" else self._page(code, error=said)

    def _respond(self, request: Request) -> Response:
        as_json = request.path == "/predict"
        try:
            _check_host(request)
            if (request.method, request.path) == ("GET", "/"):
                return self._page()
            if (request.method, request.path) not in {("POST", "/"), ("POST", "/predict")}:
                return _text("nothing is here; GET / for the page, POST /predict for JSON", 404)
            name, content = self._upload(request)
            try:
                answer = self._classify(name, content, pictured=not as_json)
            except UserError as error:
                raise UnsupportedMediaType(f"{name}: {_plain(error)}") from None
            except ReaderUnavailableError:
                raise ServiceUnavailable("no image can be read now; try again later") from None
            if as_json:
                return _json(_without_pictures(answer), 200)
            return self._page(answer=answer, picture=answer.picture)
        except HTTPException as error:
            said = " ".join(str(error.description).split())
            code = error.code or 400
            return _json({"error": said}, code) if as_json else self._page(code, error=said)

    def _upload(self, request: Request) -> tuple[str, bytes]:
        """Name and bytes of the uploaded image."""
        too_large = RequestEntityTooLarge(self._too_large)
        try:
            file = request.files.get("image")
        except RequestEntityTooLarge:
            raise too_large from None
        if file is None:
            raise BadRequest("no file: choose an image (field 'image' of a multipart form)")
        content = file.read()
        if len(content) > self._megabytes * _MEBIBYTE:
            raise too_large
        # Only ever shown, never a path.
        name = Path((file.filename or "image").replace("\\", "/")).name[:120]
        if not content:
            raise UnsupportedMediaType(f"{name}: empty file")
        return name, content

    @property
    def _too_large(self) -> str:
        return f"the file is larger than {self._limit}"

    @property
    def _limit(self) -> str:
        return f"{self._megabytes:g} MB"

    def _page(self, code: int = 200, **parts: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        known = {"answer": None, "picture": "", "error": "", **parts}
        text = self._template.render(title=self._title, limit=self._limit, nonce=nonce, **known)
        response = Response(text, code, mimetype="text/html")
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; img-src data:; script-src 'nonce-{nonce}';"
            f" style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none';"
            " base-uri 'none'"
        )
        return _guarded(response)


@dataclass(frozen=True)
class ServeLimits(UploadLimits):
    """Limits on size, memory and time of one upload.

    Attributes:
        read_seconds: For reading the picture.
    """

    read_seconds: float = 20.0

    def reading(self) -> ReadLimits:
        """Limits of the pixels that are decoded, found in the file's header."""
        bytes_stored = int(self.max_memory * _MEBIBYTE / _COPIES)
        return ReadLimits(int(self.max_megapixels * 1e6), bytes_stored)

    def budget(self) -> ReaderBudget:
        """Limits of the process that reads images, for what the header does not tell."""
        return ReaderBudget(self.read_seconds, int(self.max_memory * _MEBIBYTE))


def make_service(
    trained: Trained, neighbors: Neighbors, host: str, port: int, limits: ServeLimits
) -> HttpServer:
    """A server that is bound to its address, to be run with `serve_forever`.

    Args:
        trained: The classifier.
        neighbors: Its training images.
        host: Address to bind to.
        port: Its port; 0 = any free one, see `port` of the result.
        limits: Of an upload.

    Raises:
        UserError: The address cannot be bound to.
    """
    local = host in {"127.0.0.1", "localhost", "::1"}
    title = f"{trained.folder.name}: {len(trained.class_names)} classes"
    reader = ReaderProcess(upload_options(trained, limits.reading()), limits.budget())
    classify = Classify(trained, neighbors, read=reader)
    hosts = _LOCAL_NAMES if local else ()
    service = Service(classify, title, limits.max_megabytes, hosts)
    server = HttpServer(service, host, port, service.max_body, limits.timeout, reader.close)
    reader.start()
    return server


def _check_host(request: Request) -> None:
    request.host  # noqa: B018 (raises a SecurityError, a BadRequest, for hosts that are not trusted)


def _plain(error: UserError) -> str:
    """Returns the message of an error without the flags that would mend it on the command line."""
    text = re.split(r"[;:,(] ?[^;:,()]*--", str(error).removeprefix("image: "))[0].rstrip()
    return text if "--" not in text else "cannot be read as the training images were"


def _without_pictures(answer: Answer) -> dict[str, Any]:
    facts = asdict(answer)
    for neighbor in facts["neighbours"]:
        del neighbor["picture"]
    del facts["picture"]
    return {**facts, "scores": dict(answer.scores)}


def _json(facts: dict[str, Any], code: int) -> Response:
    return _guarded(Response(json.dumps(facts) + "\n", code, mimetype="application/json"))


def _text(text: str, code: int) -> Response:
    return _guarded(Response(text + "\n", code, mimetype="text/plain"))


def _guarded(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
