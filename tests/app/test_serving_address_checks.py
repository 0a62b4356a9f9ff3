# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from typing import Any

import pytest

from monai_anomalyclip.app.serving import AddressChecks

HOST, HERE = (b"host", b"127.0.0.1:8123"), (b"origin", b"http://127.0.0.1:8123")


def answer(path: str, method: str = "GET", *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], list[str]]:
    """Status, headers, and what the application behind was asked for."""
    asked: list[str] = []
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        loose = [(b"access-control-allow-origin", b"*"), (b"x-frame-options", b"ALLOWALL")]
        await send({"type": "http.response.start", "status": 200, "headers": loose[1:]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(AddressChecks(application, "secret", 8123)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"]), asked


def test_own_pages_are_answered() -> None:
    assert answer("/secret/", "GET", HOST)[::2] == (200, ["/"])
    assert answer("/secret/api/studies", "GET", (b"host", b"localhost:8123"))[::2] == (200, ["/api/studies"])
    assert answer("/secret/api/x", "POST", HOST, HERE, (b"sec-fetch-site", b"same-origin"))[::2] == (200, ["/api/x"])


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/", "GET", [HOST], 404),
        ("/secret", "GET", [HOST], 404),
        ("/secret2/", "GET", [HOST], 404),
        ("/geheim\udcff/", "GET", [HOST], 404),
        ("/secret/", "GET", [], 421),
        ("/secret/", "GET", [(b"host", b"evil.example:8123")], 421),  # a name made to resolve to 127.0.0.1
        ("/secret/", "GET", [(b"host", b"127.0.0.1")], 421),
        ("/secret/", "GET", [HOST, (b"host", b"evil.example")], 421),
        ("/secret/api/x", "POST", [HOST], 403),  # no origin
        ("/secret/api/x", "DELETE", [HOST, (b"origin", b"null")], 403),
        ("/secret/api/x", "PUT", [HOST, (b"origin", b"http://127.0.0.1:8124")], 403),
        ("/secret/api/x", "GET", [HOST, (b"origin", b"http://evil.example")], 403),
        ("/secret/api/x", "GET", [HOST, (b"sec-fetch-site", b"cross-site")], 403),
        ("/secret/api/x", "GET", [HOST, (b"sec-fetch-site", b"same-site")], 403),
    ],
)
def test_others_are_refused(path: str, method: str, headers: list[tuple[bytes, bytes]], status: int) -> None:
    got, _, asked = answer(path, method, *headers)
    assert (got, asked) == (status, [])


def test_every_answer_has_strict_headers() -> None:
    for path in ("/secret/", "/wrong/"):
        _, headers, _ = answer(path, "GET", HOST)
        assert headers[b"content-security-policy"].startswith(b"default-src 'none'; script-src 'self'")
        assert headers[b"x-frame-options"] == b"DENY"
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert b"access-control-allow-origin" not in headers


def test_no_websocket_is_opened() -> None:
    asked: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)

    scope = {"type": "websocket", "path": "/secret/", "headers": [HOST]}
    asyncio.run(AddressChecks(application, "secret", 8123)(scope, None, None))  # type: ignore[arg-type]
    assert asked == []
