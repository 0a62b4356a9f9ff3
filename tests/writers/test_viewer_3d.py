# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The page in 3-D in headless Chromium, on an oblique volume with a bright place; needs NiiVue of ipyniivue."""

from __future__ import annotations

import base64
import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.atomic_file import make_private_folder
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import InputPart
from monai_anomalyclip.writers.findings import Findings, view_of
from monai_anomalyclip.writers.nifti import NiftiGrid
from monai_anomalyclip.writers.output_folder import preview_path
from monai_anomalyclip.writers.result_files import write_volume_result
from monai_anomalyclip.writers.viewer_3d import VIEWER_3D, write_3d_pages
from monai_anomalyclip.writers.viewer_data import preview
from tests.chromium import until

SHAPE = (50, 70, 9)  # to R, P and S, tilted by 10 degrees
TURN = np.array([[1, 0, 0], [0, np.cos(0.17), -np.sin(0.17)], [0, np.sin(0.17), np.cos(0.17)]])
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = TURN @ np.diag([2.0, -1.5, 5.0]), (-40, 55, -20)
PLACE = (38, 20, 6)  # voxel of the lesion
_GL = ("--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def results(folder: Path) -> Path:
    """A folder with the map and the preview of one volume."""
    i, j, k = np.indices(SHAPE)
    bump = np.exp(-(((i - PLACE[0]) / 5) ** 2) - ((j - PLACE[1]) / 5) ** 2 - ((k - PLACE[2]) / 1.5) ** 2)
    heat = (0.9 * bump).astype(np.float32)
    nib.save(
        nib.Nifti1Image((100 + 40 * np.sin(i / 9) + 500 * (bump > 0.5)).astype(np.float32), AFFINE), folder / "v.nii"
    )
    (source,) = InputCatalogue(folder / "v.nii").sources.values()
    image = InputPart(source).load()
    view = view_of(source, image, "auto")
    maps = torch.from_numpy(heat)[None]
    slices = view.to_slices(maps)[:, 0].numpy()
    findings = Findings.of(slices.max(axis=(1, 2)), slices, slices >= 0.5)
    write_volume_result(folder, "v", image, maps, maps >= 0.5, view=view, grid=NiftiGrid(AFFINE, SHAPE))
    shown = preview_path(folder, "v")
    make_private_folder(shown.parent)
    shown.write_text(preview("v", source, image, maps, findings, view, 0.5))
    return folder


@pytest.fixture
def niivue() -> None:
    if find_spec("ipyniivue") is None:
        pytest.skip("ipyniivue is not installed (the extra viewer3d)")


def test_without_niivue_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomalyclip.writers.viewer_3d.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="pip install ipyniivue"):
        write_3d_pages(tmp_path, ["v"], 1)
    with pytest.raises(ValueError, match="1 page in 3-D or more, not 0"):
        write_3d_pages(tmp_path, ["v"], 0)


@pytest.mark.usefixtures("niivue")
def test_volumes_lie_where_the_map_lies(tmp_path: Path) -> None:
    (page,) = write_3d_pages(results(tmp_path), ["absent", "v"], 10)
    assert page == tmp_path / f"v{VIEWER_3D}"
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    data = json.loads(text)
    heat = nib.Nifti1Image.from_bytes(base64.b64decode(data["map"]))
    source = nib.Nifti1Image.from_bytes(base64.b64decode(data["source"]))
    truth = nib.load(tmp_path / "v_map.nii.gz")
    for volume in (heat, source):
        assert volume.get_data_dtype() == np.uint8
        middle = np.array(volume.shape) / 2 - 0.5
        assert np.allclose(volume.affine @ [*middle, 1], AFFINE @ [*np.array(SHAPE) / 2 - 0.5, 1], atol=1e-3)
    places = np.argwhere(heat.get_fdata() > 0.2)
    voxels = np.linalg.inv(truth.affine) @ heat.affine @ np.c_[places, np.ones(len(places))].T
    nearest = tuple(np.rint(voxels[:3]).astype(int))
    assert np.allclose(heat.get_fdata()[tuple(places.T)], truth.get_fdata()[nearest], atol=0.01)
    assert np.allclose(data["place"], (AFFINE @ [*PLACE, 1])[:3], atol=0.01)
    page.write_text("mine")
    with pytest.raises(FileExistsError, match="not a page of this program"):
        write_3d_pages(tmp_path, ["v"], 1)


@pytest.mark.usefixtures("niivue")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    (page_file,) = write_3d_pages(results(tmp_path), ["v"], 1)
    said: list[str] = []

    def listen(page: Any) -> None:
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url[:5] in ("file:", "data:") else said.append(request.url))

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(_GL))
        page = browser.new_page(viewport={"width": 900, "height": 800})
        listen(page)
        page.goto(page_file.as_uri())
        until(
            page,
            "'shown' in document.body.dataset || document.getElementById('said').innerText.includes('cannot')",
            seconds=120,
        )
        x, y, z = (AFFINE @ [*PLACE, 1])[:3]
        assert page.inner_text("#said") == f"R {x:.1f}, A {y:.1f}, S {z:.1f} mm · map 0.90"
        page.wait_for_timeout(500)
        for value, seen in ((0.3, True), (0.95, False), (0.3, True)):
            page.eval_on_selector(
                "[data-control=threshold]",
                "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }",
                value,
            )
            page.wait_for_timeout(500)
            assert bool(marked(page, tmp_path).sum() > 200) is seen, value
        page.select_option("[data-control=view]", "0")
        page.wait_for_timeout(500)
        found = marked(page, tmp_path)
        middle = np.nonzero(found)[1].mean() / found.shape[1]
        assert middle < 0.45  # the patient's right, where the lesion lies, is on the left
        browser.close()
    assert said == []


def marked(page: Any, folder: Path) -> np.ndarray:
    """Pixels of the picture that have the map's colour."""
    page.locator("#volume").screenshot(path=folder / "shot.png")
    pixels = np.asarray(Image.open(folder / "shot.png").convert("RGB")).astype(int)[8:-8, 8:-8]  # without corners
    return pixels[..., 0] - pixels[..., 2] > 60
