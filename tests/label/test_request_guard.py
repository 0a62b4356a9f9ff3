# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from monai_anomalyclip.label.request_guard import RequestGuard

PORT = 8000


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


def scope(method: str = "GET", **headers: str) -> dict[str, Any]:
    """An ASGI connection; names of headers with underscores, and a Host unless there is one."""
    named = {"host": f"127.0.0.1:{PORT}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "type": "http",
        "scheme": "http",
        "method": method,
        "server": ("127.0.0.1", PORT),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value],
    }


def status(guard: RequestGuard, connection: dict[str, Any]) -> int:
    refused = guard.refusal(connection)
    return refused[0] if refused else 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8000", 200),
        ("LOCALHOST:8000", 200),
        ("[::1]:8000", 200),
        ("localhost", 400),  # that is port 80
        ("localhost:8001", 400),
        ("localhost.attacker.example.org:8000", 400),
        ("attacker.example.org:8000", 400),
        ("127.0.0.1:8000@attacker.example.org", 400),
        ("127.0.0.1:8000/", 400),
        ("0.0.0.0:8000", 400),
        ("", 400),
        ("labels.example.org", 200),
        ("labels.example.org:9000", 200),  # named without a port: at any
        ("other.example.org:9001", 200),
        ("other.example.org", 400),
        ("other.example.org:9002", 400),
    ],
)
def test_hosts(host: str, expected: int) -> None:
    guard = RequestGuard(application, hosts=["labels.example.org", "Other.example.org:9001"])
    assert status(guard, scope(host=host)) == expected


def test_host_without_port_is_that_of_the_scheme() -> None:
    assert status(RequestGuard(application), {**scope(host="localhost"), "server": ("127.0.0.1", 80)}) == 200
    secure = {**scope(host="localhost"), "server": ("127.0.0.1", 443), "scheme": "https"}
    assert status(RequestGuard(application), secure) == 200


def test_host_given_twice_is_none() -> None:
    twice = scope()
    twice["headers"].append((b"host", b"127.0.0.1:8000"))
    assert status(RequestGuard(application), twice) == 400


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:8000", 200),
        ("http://localhost:8000", 200),
        ("http://localhost:3000", 403),
        ("http://127.0.0.1", 403),
        ("https://attacker.example.org", 403),
        ("null", 403),
        ("file://", 403),
        ("http://127.0.0.1:8000.attacker.example.org", 403),
        ("http://127.0.0.1:8000/", 200),
        ("http://127.0.0.1:8000/path", 403),
        ("http://viewer.example.org:3000", 200),
        ("https://viewer.example.org:3000", 403),
        ("http://viewer.example.org", 403),
    ],
)
def test_origins(origin: str, expected: int) -> None:
    guard = RequestGuard(application, origins=["http://viewer.example.org:3000"])
    assert status(guard, scope("PUT", origin=origin)) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("https://labels.example.org", 200), ("https://labels.example.org:444", 403), ("https://example.org", 403)],
)
def test_origin_behind_a_proxy_is_the_host(origin: str, expected: int) -> None:
    guard = RequestGuard(application, hosts=["labels.example.org"])
    assert status(guard, scope("PUT", host="labels.example.org", origin=origin)) == expected


@pytest.mark.parametrize(
    ("method", "site", "mode", "target", "expected"),
    [
        ("GET", "cross-site", "no-cors", "image", 403),
        ("GET", "same-site", "no-cors", "script", 403),  # another port of this machine
        ("GET", "cross-site", "navigate", "document", 200),
        ("GET", "cross-site", "navigate", "iframe", 403),
        ("POST", "cross-site", "navigate", "document", 403),
        ("GET", "same-origin", "cors", "empty", 200),
        ("GET", "none", "navigate", "document", 200),
    ],
)
def test_what_pages_of_other_sites_may_load(method: str, site: str, mode: str, target: str, expected: int) -> None:
    connection = scope(method, sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest=target)
    assert status(RequestGuard(application), connection) == expected


def test_size() -> None:
    guard = RequestGuard(application, max_bytes=100)
    assert [status(guard, scope("PUT", content_length=length)) for length in ("100", "101", "9" * 99)] == [
        200,
        413,
        413,
    ]


def run(guard: RequestGuard, connection: dict[str, Any]) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing is read")

    asyncio.run(guard(connection, receive, send))
    return sent


def test_refusal_is_a_sentence_in_json() -> None:
    start, body = run(RequestGuard(application), scope(host="attacker.example.org"))
    assert start["status"] == 400
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    detail = json.loads(body["body"])["detail"]
    assert detail == (
        "This server has not the name 'attacker.example.org': ask it as 127.0.0.1:8000, or start it with "
        "`--conf hosts NAME`."
    )
    assert run(RequestGuard(application), scope("HEAD", host="attacker.example.org"))[1]["body"] == b""


def test_others_are_passed_on() -> None:
    assert run(RequestGuard(application), scope())[1]["body"] == b"answer"
    assert run(RequestGuard(application), {"type": "lifespan"})[1]["body"] == b"answer"
    assert run(RequestGuard(application), {"type": "websocket"}) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hosts": ["http://labels.example.org"]}, "A host must be a name"),
        ({"hosts": ["a b"]}, "A host must be a name"),
        ({"origins": ["viewer.example.org"]}, "An origin must be http"),
        ({"origins": ["*"]}, "An origin must be http"),
        ({"origins": ["ftp://viewer.example.org"]}, "An origin must be http"),
    ],
)
def test_hosts_and_origins_that_are_none(options: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RequestGuard(application, **options)
