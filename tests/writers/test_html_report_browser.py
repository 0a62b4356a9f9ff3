# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The report in headless Chromium, as a reader opens it: links, the screen as a whole, print."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.writers.finished import InputState, Slices
from monai_anomalyclip.writers.html_report import KeptFiles, ReportSource, write_html_report
from monai_anomalyclip.writers.overlays import jpeg
from monai_anomalyclip.writers.record import InputRecord, Model
from monai_anomalyclip.writers.tables import RunDocument, made_with, ranked_records

COUNT = 59
MAGENTA = (255, 0, 255)  # nothing else on the page is


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """59 inputs, all of the score 1, whose pictures are magenta and of many heights; ranked by their margins."""
    folder = tmp_path_factory.mktemp("report")
    records, pictures, margins = [], {}, {}
    for index in range(COUNT):
        name = f"ct_{index:02d}" if index else "日本語_ünïcode"
        margins[name] = [20.0 + index, 19.0]
        records.append(
            InputRecord(
                name=name, source="dicom", kind="volume", modality="CT", frames=2, scores=[1.0, 1.0], anomaly_score=1.0,
                score_margin=margins[name][0], map_max=0.9, most_suspicious=[{"index": 0, "score": 1.0}],
                threshold=0.5, anomalous_fraction=0.1, outputs=[f"{name}_overlay.png"],
                warnings=["A sentence that takes room."] * (index % 4),
            )
        )  # fmt: skip
        pictures[name] = jpeg(np.full((200 + 4 * index, 300, 3), MAGENTA, np.uint8))
        Image.new("RGB", (8, 8)).save(folder / f"{name}_overlay.png")
    made = made_with(Model(backbone="b", backbone_sha256="0" * 64), {}, "cpu")
    document = RunDocument.of(records, made, {}, datetime(2026, 1, 2, tzinfo=timezone.utc))
    (folder / ".report").mkdir()
    for name, content in pictures.items():
        kept(folder, name).picture.write_bytes(content)
    states = {
        record.name: InputState(
            name=record.name, state="finished", record=record, slices=Slices(margin=tuple(margins[record.name]))
        )
        for record in records
    }
    ranked = [record.name for record in ranked_records(records)]
    source = ReportSource(ranked, [], lambda names: [states[name] for name in names], lambda name: kept(folder, name))
    write_html_report(document, source, folder / "report.html")
    return folder / "report.html"


def kept(folder: Path, name: str) -> KeptFiles:
    place = folder / ".report" / name
    return KeptFiles(place.with_suffix(".jpg"), place.with_suffix(".small"), place.with_suffix(".json"))


def magenta(picture: Image.Image) -> np.ndarray:
    """Where a picture is magenta, but for what JPEG changes."""
    return (np.abs(np.asarray(picture.convert("RGB"), dtype=int) - MAGENTA) < 8).all(axis=-1)


@pytest.mark.parametrize("width", [390, 1280])
def test_links_of_the_summary_open_their_input(browser: Any, report: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    names = page.locator("#summary tbody th a").all_inner_texts()
    assert names == [*(f"ct_{index:02d}" for index in range(COUNT - 1, 0, -1)), "日本語_ünïcode"]
    for place in (*range(1, COUNT + 1, 7), 5, 40, COUNT):
        page.evaluate("scrollTo(0, 0)")
        page.click(f"#summary tbody tr:nth-child({place}) th a")
        page.wait_for_timeout(150)
        shown = page.evaluate(
            "[...document.querySelectorAll('article')].filter(a => a.getBoundingClientRect().bottom > 60)[0]"
            ".querySelector('h3').innerText"
        )
        assert shown == f"{place} {names[place - 1]}"
        top = page.evaluate(f"document.getElementById('input-{place}').getBoundingClientRect().top")
        end = page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 1")
        assert 0 <= top < 80 or (end and 0 <= top < 800)
    page.close()


def test_pictures_show_on_a_screenshot_of_the_whole_page(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.goto(report.as_uri())
    boxes = page.evaluate(
        "[...document.images].map(image => image.getBoundingClientRect())"
        ".map(box => [box.left, box.top + scrollY, box.width, box.height])"
    )
    assert len(boxes) == COUNT
    found = magenta(Image.open(io.BytesIO(page.screenshot(full_page=True))))
    for left, top, width, height in boxes:
        inside = found[round(top) + 8 : round(top + height) - 8, round(left) + 8 : round(left + width) - 8]
        assert inside.size
        assert inside.all()
    page.close()


def test_pictures_are_printed(browser: Any, report: Path, tmp_path: Path) -> None:
    """A PDF holds each as a JPEG, equal ones once: no two are. One that was not loaded is missing there."""
    page = browser.new_page()
    page.goto(report.as_uri())
    content = page.pdf(path=tmp_path / "report.pdf")
    assert content.count(b"/DCTDecode") == COUNT
    page.close()


def test_files_of_names_in_any_script_open(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    for name in ("日本語_ünïcode", "ct_03"):
        address = page.locator(".files a", has_text=f"{name}_overlay.png").evaluate("link => link.href")
        other = browser.new_page()
        other.goto(address)
        assert other.evaluate("document.images[0].naturalWidth") == 8
        other.close()
    page.close()


def test_nothing_is_fetched_and_nothing_refused(browser: Any, report: Path) -> None:
    page = browser.new_page()
    requests: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    page.wait_for_load_state()
    assert {address for address in requests if not address.startswith("data:")} == {report.as_uri()}
    assert said == []
    page.close()
