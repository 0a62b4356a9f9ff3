# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.weights.downloading import download, partial_path, read_address

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def anything(_: Path) -> None:
    """A check that is content."""


def right(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise ValueError("it is another file.")


def redirect(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def breaks_off(at: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:at])

    return answer


def chunks(rest: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """A chunk of five bytes, then something else than the end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\n12345\r\n" + rest)
        handler.close_connection = True

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Announces nothing and does not stop by itself."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(1000):
            handler.wfile.write(CONTENT)
    except OSError:  # the other side has had enough
        handler.close_connection = True


def test_file_arrives_whole_and_alone(server: Any, tmp_path: Path) -> None:
    server.answers["/file"] = CONTENT
    target = tmp_path / "new" / "file.bin"
    download(f"{server.url}/file", target, right, limit=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_nothing_is_overwritten(server: Any, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"file\.bin exists already"):
        download(f"{server.url}/file", target, right, limit=1)
    assert target.read_bytes() == b"mine"
    assert server.requests == []


def test_broken_connection_goes_on_where_it_stopped(server: Any, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    server.answers["/file"] = breaks_off(300_000)
    with pytest.raises(
        ConnectionError, match=f"broke off at 300000 of {len(CONTENT)} bytes: the same command fetches the rest"
    ):
        download(f"{server.url}/file", target, right, limit=1 << 24)
    assert not target.exists()
    assert partial_path(target).stat().st_size == 300_000
    server.answers["/file"] = CONTENT
    download(f"{server.url}/file", target, right, limit=1 << 24)
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/file", None), ("/file", "bytes=300000-")]
    assert not partial_path(target).exists()


def test_server_without_parts_starts_again(server: Any, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    partial_path(target).write_bytes(CONTENT[:1000])
    server.answers["/file"] = breaks_off(len(CONTENT))  # says 200 to a range, and gives all
    download(f"{server.url}/file", target, right, limit=1 << 24)
    assert target.read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_not_taken(server: Any, tmp_path: Path) -> None:
    def wrong_part(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        content = CONTENT[500:] if asked else CONTENT
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes 500-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    server.answers["/file"] = wrong_part
    partial_path(tmp_path / "file.bin").write_bytes(CONTENT[:1000])
    download(f"{server.url}/file", tmp_path / "file.bin", right, limit=1 << 24)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.requests == [("/file", "bytes=1000-"), ("/file", None)]


def test_what_another_process_fetched_meanwhile_is_kept(server: Any, tmp_path: Path) -> None:
    server.answers["/file"] = CONTENT
    target = tmp_path / "file.bin"
    with pytest.raises(FileExistsError, match=r"file\.bin exists already: move it away"):
        download(f"{server.url}/file", target, lambda _: target.write_bytes(b"theirs"), limit=1 << 24)  # type: ignore
    assert target.read_bytes() == b"theirs"


def test_partial_file_that_is_longer_than_the_file_is_given_up(server: Any, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    partial_path(target).write_bytes(CONTENT + b"more")
    server.answers["/file"] = CONTENT
    download(f"{server.url}/file", target, right, limit=1 << 24)
    assert target.read_bytes() == CONTENT


def test_wrong_file_is_removed(server: Any, tmp_path: Path) -> None:
    server.answers["/file"] = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match=r"/file was not taken: it is another file\."):
        download(f"{server.url}/file", tmp_path / "file.bin", right, limit=1 << 24)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [CONTENT, endless], ids=["announced", "endless"])
def test_too_large_a_file_is_removed(answer: Any, server: Any, tmp_path: Path) -> None:
    server.answers["/file"] = answer
    with pytest.raises(ValueError, match=r"was not taken: it has .*more than the 1000"):
        download(f"{server.url}/file", tmp_path / "file.bin", anything, limit=1000)
    assert list(tmp_path.iterdir()) == []


def test_redirection_within_reason_is_followed(server: Any, tmp_path: Path) -> None:
    server.answers |= {"/old": redirect(f"{server.url}/file"), "/file": CONTENT}
    download(f"{server.url}/old", tmp_path / "file.bin", right, limit=1 << 24)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["http://192.0.2.1/file", "ftp://127.0.0.1/file", "file:///etc/hostname"])
def test_redirection_that_leaves_https_is_refused(to: str, server: Any, tmp_path: Path) -> None:
    server.answers["/old"] = redirect(to)
    with pytest.raises((ValueError, ConnectionError), match=r"not an https address|is not allowed"):
        download(f"{server.url}/old", tmp_path / "file.bin", anything, limit=1 << 24)
    assert list(tmp_path.iterdir()) == []


def test_redirections_in_a_circle_end(server: Any, tmp_path: Path) -> None:
    server.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    with pytest.raises(ConnectionError, match="HTTP 302"):
        download(f"{server.url}/a", tmp_path / "file.bin", anything, limit=1 << 24)
    assert len(server.requests) <= 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://192.0.2.1/file", "file:///etc/hostname", "ftp://127.0.0.1/x", "/etc/hostname"])
def test_only_https_is_read(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an https address"):
        download(url, tmp_path / "file.bin", anything, limit=1 << 24)


def test_absent_address_and_absent_server(server: Any, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="cannot be read: HTTP 404"):
        download(f"{server.url}/absent", tmp_path / "file.bin", anything, limit=1)
    with pytest.raises(ConnectionError, match="is this machine connected"):
        read_address("http://127.0.0.1:1/", limit=1)


def test_address_is_read_up_to_its_limit(server: Any) -> None:
    server.answers["/list"] = b"12345"
    assert read_address(f"{server.url}/list", limit=5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_address(f"{server.url}/list", limit=4)


@pytest.mark.parametrize("rest", [b"", b"9\r\n12", b"no number\r\n", b"1" * 70_000])
def test_an_address_that_breaks_off_is_a_sentence(server: Any, tmp_path: Path, rest: bytes) -> None:
    server.answers["/list"] = chunks(rest)
    with pytest.raises(ConnectionError, match=r"/list broke off .*: start the command again\."):
        read_address(f"{server.url}/list", limit=100)
    server.answers["/list"] = breaks_off(10)
    with pytest.raises(
        ConnectionError, match=f"/list broke off at 10 of {len(CONTENT)} bytes: start the command again"
    ):
        read_address(f"{server.url}/list", limit=1 << 24)


@pytest.mark.parametrize(("rest", "kind"), [(b"1" * 70_000, "LineTooLong"), (b"", "IncompleteRead")])
def test_a_file_in_broken_chunks_is_a_sentence(server: Any, tmp_path: Path, rest: bytes, kind: str) -> None:
    """Nothing says how long it is: a connection that ends early is not taken for its end."""
    server.answers["/file"] = chunks(rest)
    with pytest.raises(ConnectionError, match=rf"/file broke off \({kind}\): the same command fetches the rest"):
        download(f"{server.url}/file", tmp_path / "file.bin", anything, limit=100)
    assert not (tmp_path / "file.bin").exists()
