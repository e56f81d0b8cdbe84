"""The HTTP server under `serve.Service`: waitress, with a time limit for every request.

Waitress closes connections on which nothing happens; one that sends a byte now and then would stay
for ever. Here a request must be there as a whole in time. What is larger than allowed is read to
its end and dropped, so that the other side gets to see the answer.
"""

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer, create_server
from waitress.task import ErrorTask
from waitress.utilities import RequestEntityTooLarge
from werkzeug.wrappers import Response

from data_prep.errors import UserError

_THREADS = 4
_CONNECTIONS = 40  # at a time; each may hold an upload in memory
_MOST_HEADER_BYTES = 2**14


class Application(Protocol):
    """A WSGI application that also answers malformed requests."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request."""
        ...

    def refuse(self, path: str, code: int) -> Response:
        """Answers a request that is malformed or too large."""
        ...


class _Parser(HTTPRequestParser):
    """Reads a request; the body of one that is too large is dropped as it comes."""

    _to_drop = 0

    def received(self, data: bytes) -> int:
        if self._to_drop:
            dropped = min(len(data), self._to_drop)
            self._to_drop -= dropped
            self.completed = not self._to_drop
            return dropped
        consumed: int = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge) and self.content_length:
            self._to_drop, self.completed = self.content_length, False
        return consumed


class _Refusal(ErrorTask):
    """The application's answer to a malformed request."""

    def execute(self) -> None:
        application: Application = self.channel.server.application
        path = getattr(self.request, "path", "")
        response = application.refuse(path, self.request.error.code)
        body = response.get_data()
        self.status = response.status
        self.response_headers.extend(response.headers.to_wsgi_list())
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    """A connection; it is closed when a request is not there as a whole in time."""

    parser_class = _Parser
    error_task_class = _Refusal

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.waiting_since = time.monotonic()
        super().__init__(*args, **kwargs)

    def readable(self) -> bool:
        # Asked once a second at least; no clock runs while a request is answered.
        if self.requests:
            self.waiting_since = time.monotonic()
        elif time.monotonic() - self.waiting_since > self.adj.channel_timeout:
            self.will_close = True
        return bool(super().readable())


class HttpServer:
    """A server that is bound to its address.

    Args:
        application: Answers.
        host: Address to bind to.
        port: Its port; 0 = any free one.
        max_body: Most bytes of a request's body.
        timeout: Seconds for a request to arrive, and for a client to take its answer.
        on_close: Called when the server is closed.

    Attributes:
        port: The port that it listens on.

    Raises:
        UserError: The address cannot be bound to.
    """

    def __init__(
        self,
        application: Application,
        host: str,
        port: int,
        max_body: int,
        timeout: float,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_close = on_close
        self._sockets: dict[int, Any] = {}
        self._server: TcpWSGIServer = create_server(
            application,
            map=self._sockets,
            sockets=[_bound(host, port)],
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            channel_timeout=max(1, round(timeout)),
            cleanup_interval=1,
            max_request_body_size=max_body,
            max_request_header_size=_MOST_HEADER_BYTES,
            inbuf_overflow=max_body + 1,  # uploads stay in memory
            outbuf_overflow=2**30,
            ident=None,
            clear_untrusted_proxy_headers=False,  # nothing here looks at them
        )
        self._server.channel_class = _Channel
        self.port = int(self._server.effective_port)

    def serve_forever(self) -> None:
        """Answers until `shutdown`, or an interrupt."""
        self._server.run()

    def shutdown(self) -> None:
        """Makes `serve_forever` return; from another thread."""

        def close() -> None:
            for each in list(self._sockets.values()):
                each.close()

        self._server.trigger.pull_trigger(close)

    def close(self) -> None:
        """Frees the address."""
        self._on_close()
        self._server.task_dispatcher.shutdown(timeout=5)
        for each in list(self._sockets.values()):
            each.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens on an address."""
    problem = f"--host={host} --port={port}: cannot be bound to; give --port=0 for any free port"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError:
        raise UserError(problem) from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise UserError(problem) from None
    return made
