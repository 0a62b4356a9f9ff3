# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.label.pages import add_first_page, first_page
from tests.chromium import until

fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")


@pytest.fixture
def address() -> Iterator[str]:
    """A server with the pages that MONAI Label's has, and ours in their place."""
    application = fastapi.FastAPI(docs_url=None, redoc_url="/docs")

    @application.get("/", include_in_schema=False)
    def theirs() -> str:
        return "theirs"

    @application.get("/info/")
    def info() -> dict[str, str]:
        return {"name": "anomaly"}

    add_first_page(application, archive=True)
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_the_first_page_works_offline(browser: Any, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    for path in ("/", "/docs"):
        page.goto(address + path)
        text = page.inner_text("body")
        assert RESEARCH_USE_ONLY in text
        assert "3D Slicer" in text
        assert address in text  # what a client is to be given
        assert "/info/" in text
        assert "Open OHIF" in text
    page.click("text=What the server offers")
    until(page, "document.body.innerText.includes('anomaly')")
    assert {url[: len(address)] for url in asked} == {address}
    assert [text for text in said if "favicon" not in text and "404" not in text] == []
    page.close()


def test_it_says_what_the_server_can_do(address: str) -> None:
    with urllib.request.urlopen(f"{address}/info/", timeout=30) as answer:
        assert answer.read() == b'{"name":"anomaly"}'
    right = first_page("http://127.0.0.1:8000", True, [("GET", "/info/")])
    assert "Open OHIF" in right
    folder = first_page("http://127.0.0.1:8000", False, [])
    assert "Open OHIF" not in folder
    assert "DICOMweb archive only" in folder
    assert not re.search(r"<script|https?://(?!127)", right + folder)
