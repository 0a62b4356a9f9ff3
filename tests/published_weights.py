# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A server on this machine in place of OpenAI's and GitHub's, with the tiny CLIP and its prompts."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from monai_anomalyclip.weights import PROMPTS, ClipSource, publishers

TINY = Path(__file__).parent / "fixtures" / "tiny"


class Server:
    """Answers by path: bytes, or a function that gets the request's handler."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers["Range"]))
                answer = outer.answers.get(self.path)
                if callable(answer):
                    answer(self)
                elif answer is None:
                    self.send_error(404)
                else:
                    self.give(answer)

            def give(self, content: bytes) -> None:
                start = 0
                if wanted := self.headers["Range"]:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(content):
                        self.send_error(416)
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                self.wfile.write(content[start:])

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="session")
def clip_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tiny CLIP as a plain state dict."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(load_file(TINY / "clip_weights_fp16.safetensors"), path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def prompts_bytes() -> bytes:
    return (TINY / "prompt_learner.pth").read_bytes()


def blob_of(content: bytes) -> str:
    """As `git hash-object` has it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def publish(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Publish CLIP and prompts on the server, and let the package ask it alone. Blob ids are listed as they are."""

    def put(clip: bytes, prompts: bytes, *, sha256: str | None = None, blob: str | None = None) -> Server:
        address = f"/clip/models/{sha256 or hashlib.sha256(clip).hexdigest()}/ViT-tiny.pt"
        server.answers[address] = clip
        digest = address.split("/")[-2]
        monkeypatch.setattr(publishers, "_CLIP", ClipSource(f"{server.url}{address}", "ViT-tiny.pt", digest))
        monkeypatch.setattr(publishers, "_API", f"{server.url}/api")
        monkeypatch.setattr(publishers, "_RAW", f"{server.url}/raw")
        listing = []
        for source in PROMPTS.values():
            server.answers[source.url.removeprefix(server.url)] = prompts
            listing.append({"path": source.path, "type": "blob", "sha": blob or blob_of(prompts), "mode": "100644"})
            server.answers[source.listing_url.removeprefix(server.url)] = json.dumps({"tree": listing}).encode()
        return server

    monkeypatch.setenv("MONAI_ANOMALYCLIP_WEIGHTS", str(tmp_path / "weights"))
    return put


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lower the number of bytes that prompts can have."""

    def apply(limit: int) -> None:
        for name, source in list(PROMPTS.items()):
            monkeypatch.setitem(PROMPTS, name, replace(source, limit=limit))

    return apply
