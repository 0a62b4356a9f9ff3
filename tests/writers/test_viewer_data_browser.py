# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The viewer in headless Chromium, with every control it has, on a volume whose every place is known."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import InputPart
from monai_anomalyclip.writers.findings import Findings, finished_record, view_of
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.html_report import KeptFiles, ReportSource, viewer_page, write_html_report
from monai_anomalyclip.writers.nifti import NiftiGrid
from monai_anomalyclip.writers.record import Model
from monai_anomalyclip.writers.result_files import write_volume_result
from monai_anomalyclip.writers.tables import RunDocument, made_with
from monai_anomalyclip.writers.viewer_data import PreviewFrames, film_preview, preview
from tests.chromium import until

SHAPE = (150, 110, 9)
AFFINE = np.array([[2.0, 0, 0, -150], [0, -1.0, 0, 55], [0, 0, 5.0, -20], [0, 0, 0, 1]])  # to R, to P, to S
MARK = (60.0, 30.0)  # R and A in mm of a bright place in every slice


class Made(NamedTuple):
    folder: Path
    map: np.ndarray
    scores: np.ndarray


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report of one NIfTI volume, and its map.nii.gz."""
    folder = tmp_path_factory.mktemp("viewer")
    i, j, k = np.indices(SHAPE)
    points = np.einsum("ij,j...->i...", AFFINE[:3, :3], np.stack([i, j, k])) + AFFINE[:3, 3].reshape(3, 1, 1, 1)
    bright = (np.hypot(points[0] - MARK[0], points[1] - MARK[1]) < 12) * 900.0 + 100
    nib.save(nib.Nifti1Image(bright.astype(np.float32), AFFINE), folder / "v.nii.gz")
    waves = np.sin(i / 30) + np.cos(j / 25) + np.sin(k / 2)
    heat = (0.9 * (waves + 3) / 6).astype(np.float32)
    (source,) = InputCatalogue(folder / "v.nii.gz").sources.values()
    image = InputPart(source).load()
    view = view_of(source, image, "auto")
    maps = torch.from_numpy(heat)[None]
    slices = view.to_slices(maps)[:, 0].numpy()
    scores = np.array([0.2, 0.9, 0.3, 0.95, 0.1, 0.5, 0.6, 0.4, 0.7])
    findings = Findings.of(scores, slices, slices >= 0.5)
    paths = write_volume_result(folder, "v", image, maps, maps >= 0.5, view=view, grid=NiftiGrid(AFFINE, SHAPE))
    record = finished_record("v", source, image, view, findings, 0.5, {}, [], [path.name for path in paths])
    document = RunDocument.of(
        [record],
        made_with(Model(backbone="b", backbone_sha256="0" * 64), {}, "cpu"),
        {},
        datetime(2026, 1, 2, tzinfo=timezone.utc),
    )
    kept = KeptFiles(folder / "picture", folder / "thumbnail", folder / "preview.json")
    kept.preview.write_text(preview("v", source, image, maps, findings, view, 0.5))
    state = InputState(name="v", state="finished", record=record)
    write_html_report(document, ReportSource(["v"], [], lambda _: [state], lambda _: kept), folder / "report.html")
    return Made(folder, np.asarray(nib.load(folder / "v_map.nii.gz").dataobj), scores)


@pytest.fixture
def page(browser: Any, volume: Made) -> Iterator[Any]:
    """The report with its viewer opened; fails on whatever the browser complains of."""
    opened = browser.new_page(viewport={"width": 1100, "height": 1000})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: None if request.url[:5] in ("file:", "data:") else said.append(request.url))
    opened.goto((volume.folder / "report.html").as_uri())
    opened.click("button.open")
    at(opened, 3)  # the highest score
    yield opened
    opened.close()
    assert said == []


def at(page: Any, index: int) -> None:
    """Wait until a slice is shown."""
    page.wait_for_selector(f".place[data-shown='{index}']", timeout=300_000)
    assert f" {index} of 0 to " in page.inner_text(".said")


def canvas(page: Any, panel: int = 0) -> np.ndarray:
    """Pixels (H, W, 3) of the picture."""
    address = page.evaluate(f"document.querySelectorAll('.panel canvas')[{panel}].toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def cyan(page: Any) -> np.ndarray:
    return (canvas(page) == (0, 255, 255)).all(axis=-1)


def slide(page: Any, control: str, value: float) -> None:
    page.eval_on_selector(
        f"[data-control='{control}']",
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }",
        value,
    )


def test_value_under_the_pointer_is_that_of_the_map_file(page: Any, volume: Made) -> None:
    page.locator(".panel canvas").first.scroll_into_view_if_needed()
    box = page.locator(".panel canvas").first.bounding_box()
    seen = set()
    for across, down in np.random.default_rng(0).uniform(0.02, 0.98, (25, 2)):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        found = re.match(
            r"voxel \((\d+), (\d+), (\d+)\) · map ([\d.]+) · source about (-?\d+)", page.inner_text(".under")
        )
        assert found, page.inner_text(".under")
        voxel = tuple(map(int, found.groups()[:3]))
        seen.add(voxel)
        # NIfTI's view is radiological: the patient's right is on the left, anterior is up.
        point = AFFINE @ (*voxel, 1)
        assert point[0] == pytest.approx(148 - across * 300, abs=2.5)
        assert point[1] == pytest.approx(55 - down * 110, abs=1.5)
        assert float(found[4]) == pytest.approx(float(volume.map[voxel]), abs=0.012)
        inside = np.hypot(point[0] - MARK[0], point[1] - MARK[1]) < 9
        assert (int(found[5]) > 500) == inside or 9 <= np.hypot(point[0] - MARK[0], point[1] - MARK[1]) <= 15
    assert len(seen) == 25
    assert "-5.0 mm towards S" in page.inner_text(".said")


def test_letters_tell_where_the_patient_is(page: Any) -> None:
    """The bright place lies to the right and in front."""
    letters = {side: page.inner_text(f".panel .side-{side} >> nth=0") for side in range(4)}
    assert letters == {0: "R", 1: "L", 2: "A", 3: "P"}
    page.locator("[data-control='map']").uncheck()
    page.locator("[data-control='outline']").uncheck()
    picture = canvas(page)
    rows, columns = np.nonzero(picture[..., 0] > 200)
    assert columns.mean() / picture.shape[1] == pytest.approx((148 - MARK[0]) / 300, abs=0.02)
    assert rows.mean() / picture.shape[0] == pytest.approx((55 - MARK[1]) / 110, abs=0.02)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(300 / 110, abs=0.02)  # square pixels


def test_wheel_keys_drag_and_slider_move_through_the_slices(page: Any) -> None:
    picture = page.locator(".panel canvas").first
    picture.hover()
    page.mouse.wheel(0, 100)
    at(page, 4)
    page.mouse.wheel(0, -100)
    at(page, 3)
    picture.focus()
    for key, index in (("ArrowDown", 4), ("ArrowUp", 3), ("End", 8), ("Home", 0), ("PageDown", 1), ("n", 8), ("n", 6)):
        page.keyboard.press(key)
        at(page, index)
    box = picture.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 2 * 300 / 9, steps=4)
    page.mouse.up()
    at(page, 4)
    slide(page, "slice", 7)
    at(page, 7)
    page.click("text=Next most suspicious")
    at(page, 2)  # 0.4 is followed by 0.3


def test_click_on_the_plot_opens_the_slice(page: Any) -> None:
    plot = page.locator(".plot svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.click(box["x"] + (36 + (418 - 36) * 6 / 8) / 430 * box["width"], box["y"] + 0.5 * box["height"])
    at(page, 6)
    assert page.get_attribute(".marker", "d") == f"M{36 + (418 - 36) * 6 / 8},24V156"


def test_threshold_moves_the_outline(page: Any, volume: Made) -> None:
    exact = volume.map[:, :, 3].T[:, ::-1]  # as it is shown
    for threshold in (0.4, 0.5, 0.62):
        slide(page, "threshold", threshold)
        marked = cyan(page)
        assert marked.any()
        rows, columns = np.nonzero(marked)
        height, width = marked.shape
        values = exact[(rows + 0.5).astype(int) * 110 // height, (columns + 0.5).astype(int) * 150 // width]
        assert np.abs(values - threshold).max() < 0.03
        assert f"{threshold:.3f}" in page.inner_text(".controls")
    slide(page, "threshold", 1)
    assert not cyan(page).any()


def test_map_opacity_outline_window_and_reset(page: Any) -> None:
    slide(page, "threshold", 1)
    half = canvas(page).astype(int)
    slide(page, "opacity", 1)
    full = canvas(page).astype(int)
    slide(page, "opacity", 0)
    none = canvas(page).astype(int)
    assert np.array_equal(none, canvas(page, 1))
    assert np.abs(half - none).mean() * 1.8 < np.abs(full - none).mean()
    page.keyboard.press("r")
    assert page.input_value("[data-control='opacity']") == "0.5"
    assert cyan(page).any()
    page.locator(".panel canvas").first.focus()
    page.keyboard.press("o")
    assert not cyan(page).any()
    page.keyboard.press("m")
    assert np.array_equal(canvas(page), canvas(page, 1))
    slide(page, "white", 60)
    assert (canvas(page, 1) >= none).all()
    assert canvas(page, 1).mean() > none.mean()
    assert int(page.locator("label:has([data-control='white']) output").inner_text()) < 500  # in the input's own values
    slide(page, "black", 100)
    assert page.input_value("[data-control='white']") == "101"


def test_side_by_side_and_what_a_screen_reader_hears(page: Any) -> None:
    assert not page.is_visible(".panel >> nth=1")
    page.keyboard.press("s")
    assert page.is_visible(".panel >> nth=1")
    assert page.get_attribute(".place", "aria-label") == "Viewer of v, a preview"
    heard = page.get_attribute("[data-control='slice']", "aria-valuetext")
    assert heard.startswith("slice 3 of 0 to 8 · -5.0 mm towards S · score 0.950")
    assert heard in page.get_attribute(".panel canvas >> nth=0", "aria-label")
    assert page.get_attribute(".said", "aria-live") == "polite"
    assert "Preview" in page.inner_text(".note")
    page.locator("[data-control='slice']").focus()
    page.keyboard.press("ArrowRight")
    at(page, 4)
    names = page.evaluate(
        "[...document.querySelectorAll('.place input')].map(input => input.labels[0]?.innerText.trim())"
    )
    assert all(names)


def test_a_film_plays(browser: Any, tmp_path: Path) -> None:
    count = 5
    frames = PreviewFrames()
    pictures = np.zeros((count, 40, 60, 3), np.uint8)
    pictures[np.arange(count), :, np.arange(count) * 10] = 255
    frames.add(range(count), pictures, np.zeros((count, 40, 60)))
    scores = np.array([0.1, 0.5, 0.2, 0.9, 0.3])
    text = film_preview("f", frames, Findings(scores, scores, scores), 0.5, np.arange(count) / 20, (40, 60))
    (tmp_path / "f_viewer.html").write_text(viewer_page("f", text, "report.html"))
    page = browser.new_page()
    page.goto((tmp_path / "f_viewer.html").as_uri() + "#1")
    page.wait_for_selector("#viewer[data-shown='1']")
    page.evaluate(
        "window.seen = [];"
        "document.getElementById('viewer').addEventListener('slice', (event) => seen.push(event.detail))"
    )
    page.click("text=Play")
    until(page, "seen.length > 5")
    page.click("text=Stop")
    seen = page.evaluate("seen")
    assert seen[:6] == [2, 3, 4, 0, 1, 2]
    page.goto((tmp_path / "f_viewer.html").as_uri() + "#4")
    page.wait_for_selector("#viewer[data-shown='4']")
    page.close()


def test_colours_to_a_ceiling(browser: Any, tmp_path: Path) -> None:
    """Distances up to 0.2 are drawn as values up to 1 are, but clear where those of normals lie."""
    drawn = {}
    for ceiling, share in ((1.0, 1.0), (0.2, 1.0), (0.2, 2.0), (0.2, 0.3)):
        frames = PreviewFrames()
        frames.add(range(1), np.full((1, 40, 60, 3), 90, np.uint8), np.full((1, 40, 60), ceiling * share))
        scores = np.array([0.5])
        text = film_preview("f", frames, Findings(scores, scores, scores), 0.9, [0.0], (40, 60), ceiling=ceiling)
        (tmp_path / "f_viewer.html").write_text(viewer_page("f", text, "report.html"))
        page = browser.new_page()
        page.goto((tmp_path / "f_viewer.html").as_uri() + "#0")
        page.wait_for_selector("#viewer[data-shown='0']")
        slide(page, "threshold", 1)
        drawn[ceiling, share] = canvas(page).astype(int)
        page.close()
    assert np.abs(drawn[0.2, 1.0] - drawn[1.0, 1.0]).max() <= 2
    assert np.array_equal(drawn[0.2, 2.0], drawn[0.2, 1.0])
    assert np.abs(drawn[0.2, 0.3] - 90).max() <= 2
    assert np.abs(drawn[0.2, 1.0] - 90).max() > 50
