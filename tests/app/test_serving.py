# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The page in headless Chromium, from a dropped folder to the exported segmentation, without any outside request."""

from __future__ import annotations

import io
import re
import threading
import webbrowser
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.app.serving import Server, serve
from monai_anomalyclip.app.studies import Runner, Workplace
from tests.chromium import until


def opened(browser: Any, address: str, said: list[str]) -> Any:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(300_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not_here(request.url, address) else None)
    page.goto(address)
    return page


def not_here(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def test_from_a_folder_to_what_was_accepted(
    browser: Any, tmp_path: Path, phantoms: ModuleType, face_bundle: Path
) -> None:
    """Uploads, progress, slider, reject, accept, export; a second tab; and the same folder opened again later."""
    given = tmp_path / "Study <b>"
    phantoms.make_series(given / "ct", count=3, size=(40, 48))
    hostile = "<img src=x onerror=alert(1)>.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(given / hostile)
    said: list[str] = []
    words = ["--bundle", str(face_bundle), "--device", "cpu"]
    with Server(tmp_path / "app", words) as server:
        page = opened(browser, server.address, said)
        other = opened(browser, server.address, said)
        page.eval_on_selector("details", "details => { details.open = true; }")
        page.fill("#threshold", "0.05")  # prompts that nobody tuned mark little
        page.set_input_files("#folder", given)
        page.wait_for_selector("#study:not([hidden])")
        assert page.inner_text("#study-title") == "Study <b>"
        until(page, "document.getElementById('state').innerText.startsWith('done: 2 inputs')", 900)
        assert page.eval_on_selector("#progress", "progress => progress.value / progress.max") == 1
        assert "demonstration's tiny CLIP" in page.inner_text("#caution")
        rows = page.locator("#inputs tr")
        assert rows.count() == 2
        assert {row.split("\n")[0].strip() for row in page.locator("#inputs th").all_inner_texts()}
        assert any(hostile in text for text in page.locator("#inputs th").all_inner_texts())
        # The CT in the viewer.
        page.locator("#inputs button", has_text="ct_").click()
        page.wait_for_selector("#viewer[data-shown]")
        page.eval_on_selector(
            "[data-control='slice']", "input => { input.value = 2; input.dispatchEvent(new Event('input')); }"
        )
        page.wait_for_selector("#viewer[data-shown='2']")
        count = page.locator("#findings li").count()
        assert count >= 1
        # One is accepted with a note, the others are rejected.
        page.locator("#findings li").first.locator("textarea").fill("seen <i>")
        page.locator("#findings li").first.get_by_text("accept", exact=True).click()
        until(page, "document.querySelector('#inputs .accepted')?.innerText === '1 accepted'")
        if count > 1:
            page.locator("#findings li").nth(1).get_by_text("reject", exact=True).click()
            until(page, "document.getElementById('inputs').innerText.includes('1 rejected')")
        # The other tab sees it.
        other.locator("#studies button").click()
        other.wait_for_selector("#inputs .accepted")
        with page.expect_download() as download:
            page.click("#export")
        with zipfile.ZipFile(download.value.path()) as archive:
            names = archive.namelist()
            (segmentation,) = [name for name in names if name.endswith("_accepted_seg.dcm")]
            seg = hd.seg.segread(io.BytesIO(archive.read(segmentation)))
            assert "seen <i>" in archive.read("findings.csv").decode()
            (report,) = [name for name in names if name.endswith("_sr.dcm")]
            read = hd.sr.srread(io.BytesIO(archive.read(report)))
        assert seg.NumberOfFrames == 3
        assert seg.pixel_array.any()
        _, *findings = read.content.get_image_measurement_groups()
        assert [finding.tracking_identifier for finding in findings] == ["finding 1"]  # accepted, and nothing else
        assert "seen <i>" in read.to_json()
        assert said == []
        page.close()
        other.close()
    with Server(tmp_path / "app", words) as server:  # later
        page = opened(browser, server.address, said)
        page.locator("#studies button").click()
        page.wait_for_selector("#inputs .accepted")
        page.locator("#inputs button", has_text="ct_").click()
        assert page.locator("#findings textarea").first.input_value() == "seen <i>"
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#remove")
        until(page, "document.getElementById('studies').innerText.includes('None yet')")
        page.close()
    assert said == []
    assert list((tmp_path / "app" / "studies").iterdir()) == []


def test_a_folder_dropped_and_a_file_that_is_refused(browser: Any, tmp_path: Path) -> None:
    said: list[str] = []
    with Server(tmp_path / "app", [], most_bytes=1000) as server:
        page = opened(browser, server.address, said)
        page.set_input_files("#files", {"name": "big.png", "mimeType": "image/png", "buffer": bytes(5000)})
        until(page, "document.getElementById('message').innerText.includes('GiB')")
        page.fill("#path", "/no/such/folder")
        page.click("#named button")
        until(page, "document.getElementById('message').innerText.includes('no such file')")
        page.evaluate(
            """() => {
                const data = new DataTransfer();
                data.items.add(new File(["no picture"], "note.txt"));
                const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
                document.getElementById("drop").dispatchEvent(event);
            }"""
        )
        page.wait_for_selector("#study:not([hidden])")
        until(page, "document.getElementById('again').hidden === false")
        assert page.inner_text("#state")  # why there was nothing to score
        page.close()
    assert [text for text in said if "413" not in text and "400" not in text] == []


def test_what_was_not_done_is_done_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workplace(tmp_path / "app")
    states = ("receiving", "queued", "running", "finished", "stopped")
    for state in states:
        place.new(state).change(state=state)
    again: list[str] = []
    monkeypatch.setattr(Runner, "_score", lambda runner, study: again.append(study.record.title))
    with Server(tmp_path / "app") as server:
        threading.Timer(0.1, lambda: setattr(server._server, "should_exit", True)).start()
        server.wait()  # until it ends by itself
    assert sorted(again) == ["queued", "running"]


@pytest.mark.parametrize("browse", [True, False])
def test_the_address_is_printed_and_opened(
    browse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl+C ends it; a machine without a browser is none of its affairs."""
    opened: list[str] = []

    def without_browser(address: str) -> None:
        opened.append(address)
        raise webbrowser.Error("no browser")

    def interrupted(server: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", without_browser)
    monkeypatch.setattr(Server, "wait", interrupted)
    serve(tmp_path / "app", ["--device", "cpu"], browse=browse, gigabytes=1)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+/[\w-]{32}/", first)
    assert str(tmp_path / "app") in second
    assert opened == ([first.removeprefix("Open ")] if browse else [])


def test_an_address_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "a") as server,
        pytest.raises(OSError, match=rf"Port {server.port} of 127\.0\.0\.1 cannot be used"),
    ):
        Server(tmp_path / "b", port=server.port)
