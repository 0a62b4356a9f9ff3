# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Only pages of this server, opened by who started it, get an answer: its secret address, its Host, its Origin."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["AddressChecks"]

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
