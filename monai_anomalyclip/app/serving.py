# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The server of the page: on this machine's loopback address alone, at one nobody can guess, for this page alone."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from monai_anomalyclip.app.routes import Routes
from monai_anomalyclip.app.studies import Runner, Workplace

__all__ = [
    "AddressChecks",
    "Server",
    "serve",
]


class Server:
    """The page of a folder of studies, served until it is closed.

    Args:
        folder: private, of all studies.
        words: of the command `predict`, such as ``["--bundle", "anomalyclip_demo"]``.
        port: of the loopback address; 0 for a free one.
        most_bytes: of the files of a study that a browser sends.
        most_files: their number.

    Raises:
        OSError: the port is taken, or the folder cannot be made.

    Example:
        >>> with Server("anomalyclip_app", ["--bundle", "anomalyclip_demo"]) as server:
        ...     print(server.address)
        ...     server.wait()
    """

    def __init__(
        self,
        folder: str | Path,
        words: Sequence[str] = (),
        port: int = 0,
        most_bytes: int = 20 * 2**30,
        most_files: int = 50_000,
    ) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen()  # so that nobody else can
        except OSError as error:
            self._socket.close()
            raise OSError(f"Port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another one.") from error
        self.port: int = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(24)
        self.address = f"http://127.0.0.1:{self.port}/{token}/"
        place = Workplace(Path(folder).absolute())
        self.runner = Runner(words, most_bytes, most_files)
        routes = Routes(place, self.runner, most_bytes, most_files)
        application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        routes.add_to(application)
        checked = AddressChecks(application, token, self.port)
        # No log of requests: their addresses hold the token.
        config = uvicorn.Config(checked, log_level="warning", access_log=False, server_header=False, ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        for study in place.studies.values():
            if study.record.state in ("queued", "running"):  # the program was ended meanwhile
                self.runner.add(study)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def wait(self) -> None:
        """Until the server ends."""
        while self._thread.is_alive():
            self._thread.join(1)

    def close(self) -> None:
        """End the server, and stop what is being scored: it is resumed next time."""
        self._server.should_exit = True
        self.runner.close()
        if self._thread.is_alive():
            self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    folder: str | Path, words: Sequence[str] = (), port: int = 0, browse: bool = True, gigabytes: float = 20
) -> None:
    """Serve the page until the program is interrupted.

    Args:
        folder: private, of all studies.
        words: of the command `predict`.
        port: 0 for a free one.
        browse: open the page in the user's browser.
        gigabytes: the most that a browser may send for one study, in GiB.
    """
    with Server(folder, words, port, int(gigabytes * 2**30)) as server:
        print(
            f"Open {server.address}\nStudies and results are kept in {Path(folder).absolute()}; Ctrl+C ends the page."
        )
        if browse:
            import webbrowser

            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


class AddressChecks:
    """Wrap an ASGI application.

    A request must carry the token as the first part of its path, name this server in ``Host`` (a foreign name that
    was made to resolve to 127.0.0.1 does not), and, where it changes something, name it in ``Origin``. Nothing is ever
    allowed to other origins. The application sees paths without the token.

    Args:
        application: what answers.
        token: the secret part of the address.
        port: of the server.
    """

    def __init__(self, application: Any, token: str, port: int) -> None:
        self.application = application
        self.token = token.encode()
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket is ever opened
        if status := self._refusal(scope):
            await self._say(send, status)
            return

        async def guarded(message: _Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in _HEADERS]
                message = {**message, "headers": [*kept, *_HEADERS.items()]}
            await send(message)

        path = "/" + scope["path"].lstrip("/").partition("/")[2]
        await self.application({**scope, "path": path, "raw_path": path.encode()}, receive, guarded)

    def _refusal(self, scope: MutableMapping[str, Any]) -> int:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return 421
        token, slash, _ = scope["path"].lstrip("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode("utf-8", "surrogateescape"), self.token):
            return 404
        origins = headers.get(b"origin", [])
        changes = scope["method"] not in ("GET", "HEAD")
        if (changes and not origins) or any(origin != b"http://" + hosts[0] for origin in origins):
            return 403
        if headers.get(b"sec-fetch-site", [b"none"])[0] not in (b"same-origin", b"none"):
            return 403
        return 0

    async def _say(self, send: _Send, status: int) -> None:
        text = {
            403: b"This request comes from another page.",
            404: b"There is nothing here: open the address that the program printed.",
            421: b"This server answers at 127.0.0.1 only.",
        }[status]
        headers = [(b"content-type", b"text/plain"), (b"connection", b"close"), *_HEADERS.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})
