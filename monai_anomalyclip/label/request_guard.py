# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which requests the label server answers at all: by their Host, by the web page they come from, and by their size.

MONAI Label 0.8.5 answers every web page, and every name that leads to it. A page that an annotator has open could so
read images and write labels on 127.0.0.1, by itself or by a name of its own that it has point there (DNS rebinding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeAlias

__all__ = ["RequestGuard"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NETLOC = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?", re.ASCII)
_SHOWN = 80


class RequestGuard:
    """ASGI middleware that answers requests from elsewhere itself, with a sentence, and lets the others through.

    - **Host** must be a name of this machine for itself (127.0.0.1, localhost, ::1) with the port the server listens
      at, or one of `hosts`; else status 400.
    - **Origin**, which browsers send along, must be the server itself or one of `origins`, and a page of another site
      may not fetch, embed or frame anything, only lead there; else status 403. Programs that are no browsers send none.
    - **Content-Length** must not exceed `max_bytes`; else status 413. What comes without it is counted elsewhere.

    Args:
        app: what answers the requests that are let through.
        hosts: further names of the server, as browsers write them: ``name`` with any port, or ``name:port``.
        origins: web origins of viewers that lie elsewhere, such as ``http://localhost:3000``.
        max_bytes: the largest body of a request.

    Raises:
        ValueError: one of the hosts or origins is none.

    Example:
        >>> guard = RequestGuard(app, origins=["https://viewer.example.org"])  # doctest: +SKIP
    """

    def __init__(
        self, app: App, hosts: Collection[str] = (), origins: Collection[str] = (), max_bytes: int = 2**31
    ) -> None:
        self.app, self.max_bytes = app, max_bytes
        for host in hosts:
            if not _NETLOC.fullmatch(host.lower()):
                raise ValueError(f"A host must be a name or name:port, got {host!r}.")
        for origin in origins:
            if _split_origin(origin) is None:
                raise ValueError(f"An origin must be http(s)://name or http(s)://name:port, got {origin!r}.")
        self.hosts = frozenset(host.lower() for host in hosts)
        self.origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one connection."""
        if scope["type"] == "websocket":  # MONAI Label has none
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self.refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.app(scope, receive, send)
            return
        status, sentence = refused
        body = json.dumps({"detail": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused; None for one that is let through.

        Args:
            scope: of an ASGI connection of type ``http``.
        """
        hosts = _header(scope, "host")
        server = scope.get("server")
        port = server[1] if server else None
        host = _NETLOC.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if host is None or not self._is_host(host[1], host[2], scope["scheme"], port):
            return 400, (
                f"This server has not the name {', '.join(hosts)[:_SHOWN]!r}: ask it as 127.0.0.1:{port}, or start it "
                "with `--conf hosts NAME`."
            )
        origins = _header(scope, "origin")
        if any(not self._is_origin(origin, host[1], host[2], port) for origin in origins) or len(origins) > 1:
            return 403, (
                f"Pages of {', '.join(origins)[:_SHOWN]!r} may not use this server, unless it is started with "
                "`--conf origins ORIGIN`."
            )
        if not origins and _comes_from_another_site(scope):
            return 403, "Pages of another site may not load anything from this server, only lead to it."
        for length in _header(scope, "content-length"):
            if length.isdecimal() and int(length) > self.max_bytes:
                return 413, (
                    f"The request has {int(length)} bytes, {self.max_bytes} at most are taken: start the server with "
                    "`--conf max_upload_mib NUMBER` for larger ones."
                )
        return None

    def _is_host(self, name: str, port: str | None, scheme: str, server_port: int | None) -> bool:
        if name in self.hosts or (port and f"{name}:{port}" in self.hosts):
            return True
        return name in _LOOPBACK and (int(port) if port else _DEFAULT_PORTS.get(scheme)) == server_port

    def _is_origin(self, origin: str, host: str, host_port: str | None, server_port: int | None) -> bool:
        if origin.lower().rstrip("/") in self.origins:
            return True
        found = _split_origin(origin)
        if found is None:  # among them "null", which sandboxed pages and files send
            return False
        name, port = found
        if name in _LOOPBACK and port == server_port:
            return True
        # Behind a proxy that speaks https for it, the server does not know its own scheme.
        return name == host and (port == int(host_port) if host_port else port in _DEFAULT_PORTS.values())


def _split_origin(origin: str) -> tuple[str, int] | None:
    scheme, separator, rest = origin.lower().rstrip("/").partition("://")
    netloc = _NETLOC.fullmatch(rest)
    if not separator or scheme not in _DEFAULT_PORTS or netloc is None:
        return None
    return netloc[1], int(netloc[2] or _DEFAULT_PORTS[scheme])


def _comes_from_another_site(scope: Scope) -> bool:
    """Browsers tell so even where they send no Origin, as for pictures, scripts and frames."""
    if not {"cross-site", "same-site"} & set(_header(scope, "sec-fetch-site")):
        return False
    leads = _header(scope, "sec-fetch-mode") == ["navigate"] and _header(scope, "sec-fetch-dest") == ["document"]
    return not (leads and scope["method"] in ("GET", "HEAD"))


def _header(scope: Scope, name: str) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key.lower() == name.encode()]
