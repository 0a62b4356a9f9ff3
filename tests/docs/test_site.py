# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The site: built strictly, whole, and without anything from the network."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

REPOSITORY = Path(__file__).parents[2]
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


class Links(HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if attributes.get("id"):
            self.anchors.add(str(attributes["id"]))
        if tag in LOADED and attributes.get(LOADED[tag]) and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(str(attributes[LOADED[tag]]))
        elif tag == "a" and attributes.get("href"):
            self.linked.append(str(attributes["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` builds, and that nothing was said against it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_site_has_all_pages(site: Path) -> None:
    written = [path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")]
    notebooks = [Path("tutorials") / path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb")]
    assert len(written) > 30
    assert len(notebooks) == 7
    for page in [*written, *notebooks]:
        assert (site / page.with_suffix(".html")).is_file(), page


def test_nothing_is_loaded_from_the_network(pages: dict[Path, Links]) -> None:
    loaded = [address for page in pages.values() for address in page.loaded]
    assert len(loaded) > 100
    assert [address for address in loaded if urlsplit(address).netloc] == []
    styles = [path.read_text() for path in next(iter(pages)).parents[0].rglob("*.css")]
    assert not [style for style in styles if re.search(r"@import|url\(['\"]?(?:https?:)?//", style)]


def test_links_lead_somewhere(site: Path, pages: dict[Path, Links]) -> None:
    lost = []
    for page, links in pages.items():
        if page.name == "404.html":  # its addresses start at the root of a server
            continue
        for address in [*links.loaded, *links.linked]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or address in ("#", "."):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                lost.append((page.relative_to(site), address))
            elif parts.fragment and target in pages and not parts.fragment.startswith("__"):
                known = pages[target].anchors
                if unquote(parts.fragment) not in known:
                    lost.append((page.relative_to(site), address))
    assert lost == []


def test_search_works_in_a_page_opened_from_a_folder(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((site / "how_to" / "chest_xray.html").as_uri())  # a folder deeper than the index
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").press_sequentially("segmentation")
    page.locator(".md-search-result__item a").first.wait_for(state="attached", timeout=300_000)
    found = page.eval_on_selector_all(".md-search-result__item > a", "links => links.map(link => link.href)")
    assert len(found) > 3
    for address in found:
        path = Path(unquote(urlsplit(address).path))
        assert path.is_relative_to(site)
        assert "segment" in path.read_text(encoding="utf-8").lower()
    assert said == []
    assert {urlsplit(address).scheme for address in asked} <= {"file", "data"}
    page.close()


def test_equations_are_mathml(site: Path) -> None:
    text = (site / "explanation" / "method.html").read_text()
    assert text.count("<math") > 20
    assert "\\frac" not in re.sub(r"<annotation.*?</annotation>", "", text, flags=re.DOTALL)
    for page in site.rglob("*.html"):
        assert 'class="arithmatex"' not in page.read_text(), page.name


@pytest.mark.parametrize(
    "package",
    [
        "predictor",
        "prediction",
        "networks",
        "losses",
        "inferers",
        "data",
        "engines",
        "handlers",
        "metrics",
        "baselines",
        "writers",
        "export",
        "reference",
        "weights",
    ],
)
def test_reference_has_what_is_public(package: str, site: Path, pages: dict[Path, Links]) -> None:
    place = f"experiments.{package}" if package in ("baselines", "reproduce") else package
    module = importlib.import_module(f"monai_anomalyclip.{place}")
    public = [name for name in module.__all__ if callable(getattr(module, name)) and getattr(module, name).__doc__]
    anchors = pages[site / "reference" / f"{package}.html"].anchors
    prefix = f"monai_anomalyclip.{place}"
    for name in public:
        # A function that is called as its module is stands there under its full name.
        assert {f"{prefix}.{name}", f"{prefix}.{name}.{name}"} & anchors, name


def test_docstrings_are_read(site: Path) -> None:
    for page in (site / "reference").glob("*.html"):
        prose = re.sub(r"<pre.*?</pre>|<details.*?</details>", "", page.read_text(), flags=re.DOTALL)
        assert not re.search(r":(?:attr|class|data|func|meth|mod):", prose), page.name


def test_command_line_is_the_real_one(site: Path) -> None:
    text = (site / "reference" / "command_line.html").read_text()
    for command in ("predict", "inspect", "weights bundle", "doctor"):
        assert f"monai-anomalyclip {command}" in text


def test_pictures_of_notebooks_are_there(site: Path, pages: dict[Path, Links]) -> None:
    for notebook in sorted((site / "tutorials").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        kept = [output["data"] for cell in cells for output in cell.get("outputs", ()) if "data" in output]
        pictures = [data for data in kept if {"image/jpeg", "image/png"} & data.keys() and "text/html" not in data]
        shown = [name for name in pages[notebook.with_suffix(".html")].loaded if "_pictures/" in name]
        assert len(shown) == len(pictures), notebook.name  # what has HTML, too, is shown by that


def test_notebook_itself_can_be_had(site: Path) -> None:
    for notebook in (REPOSITORY / "notebooks").glob("*.ipynb"):
        assert (site / "tutorials" / notebook.name).read_bytes() == notebook.read_bytes()
