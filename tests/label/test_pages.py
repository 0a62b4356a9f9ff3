# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""On the words of MONAI Label's panel; the real one is looked at in tests/label_server/test_ohif.py."""

from __future__ import annotations

import logging
import mimetypes
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.label.pages import COLOURS, add_first_page, first_page, fit_ohif, fitted
from monai_anomalyclip.transforms.annotation_answer import level_names
from tests.chromium import until

fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

PAGE = """<head><link rel='icon' href='/ohif/assets/icon.svg'/><link rel="preconnect" href="https://fonts.example.org"/>\
<link href="https://fonts.example.org/css2?family=Inter&display=swap" rel="stylesheet"/></head>"""

SCRIPT = mimetypes.guess_type("a.js")[0]

PANEL = """
class MonaiLabelPanel {}
const url = CookieUtils.getCookieString('X', 'http://' + window.location.host.split(':')[0] + ':8000/');
const GenericAnatomyColors = [{
  label: 'background',
  value: rgbToHex(0, 0, 0)
}];
this.state = { strategy: 'random', training: false };
const fields = {
  Modality: 'Modality',
};
"""


def test_the_panel_is_fitted(caplog: pytest.LogCaptureFixture) -> None:
    text = fitted(PANEL)
    assert caplog.messages == []
    assert ":8000" not in text
    assert "getCookieString('X', window.location.origin + '/')" in text
    assert "strategy: 'highest_score', training" in text
    assert 'const GenericAnatomyColors = [{"label": "anomaly", "value": "#' in text
    assert "}, {\n  label: 'background'" in text
    assert '"anomaly_score": "Anomaly score"' in text


def test_labels_are_seen_on_black_and_on_white() -> None:
    """By the contrast ratio of the Web Content Accessibility Guidelines, of at least 3 on black; never near to gray."""
    assert COLOURS.keys() == {"anomaly", *level_names()}
    for colour in COLOURS.values():
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert (luminance + 0.05) / 0.05 >= 3
        assert max(channels) - min(channels) > 0.9


def test_another_panel_stays_as_it_is_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fitted("class MonaiLabelPanel {}") == "class MonaiLabelPanel {}"
    assert len(caplog.messages) == 4


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server whose OHIF has a page, the panel, another script, and a file in a folder of its own."""
    folder = tmp_path / "ohif"
    (folder / "assets").mkdir(parents=True)
    (folder / "panel.js").write_text(PANEL)
    (folder / "other.js").write_text("strategy: 'random',")
    (folder / "app.css").write_text(
        "@import url(https://fonts.example.org/css2?family=Inter&display=swap);a{color:red}"
    )
    (folder / "assets" / "icon.svg").write_text("<svg/>")
    (folder / "index.html").write_text(PAGE)
    (tmp_path / "secret.js").write_text("secret")
    application = fastapi.FastAPI()

    @application.get("/ohif/{path:path}")
    def theirs(path: str) -> str:
        return "theirs"

    fit_ohif(application, folder)
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def get(address: str) -> tuple[str, str]:
    with urllib.request.urlopen(address, timeout=300) as answer:
        return answer.read().decode(), answer.headers["content-type"].split(";")[0]


def test_what_is_answered(address: str) -> None:
    assert get(f"{address}/ohif/panel.js") == (fitted(PANEL), SCRIPT)
    assert get(f"{address}/ohif/other.js")[0] == "strategy: 'random',"
    assert get(f"{address}/ohif/app.css") == ("a{color:red}", "text/css")
    assert get(f"{address}/ohif/assets/icon.svg") == ("<svg/>", "image/svg+xml")
    page = "<head><link rel='icon' href='/ohif/assets/icon.svg'/></head>"
    for path in ("", "monai-label?StudyInstanceUIDs=1.2", "index.html", "..%2Fsecret.js", "%2Fetc%2Fpasswd", "assets"):
        assert get(f"{address}/ohif/{path}") == (page, "text/html"), path


@pytest.fixture
def home() -> Iterator[str]:
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


def test_the_first_page_works_offline(browser: Any, home: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    for path in ("/", "/docs"):
        page.goto(home + path)
        text = page.inner_text("body")
        assert RESEARCH_USE_ONLY in text
        assert "3D Slicer" in text
        assert home in text  # what a client is to be given
        assert "/info/" in text
        assert "Open OHIF" in text
    page.click("text=What the server offers")
    until(page, "document.body.innerText.includes('anomaly')")
    assert {url[: len(home)] for url in asked} == {home}
    assert [text for text in said if "favicon" not in text and "404" not in text] == []
    page.close()


def test_it_says_what_the_server_can_do(home: str) -> None:
    with urllib.request.urlopen(f"{home}/info/", timeout=300) as answer:
        assert answer.read() == b'{"name":"anomaly"}'
    right = first_page("http://127.0.0.1:8000", True, [("GET", "/info/")])
    assert "Open OHIF" in right
    folder = first_page("http://127.0.0.1:8000", False, [])
    assert "Open OHIF" not in folder
    assert "DICOMweb archive only" in folder
    assert not re.search(r"<script|https?://(?!127)", right + folder)
