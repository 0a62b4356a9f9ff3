# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""`make label-demo` as a reader sees it: OHIF in Chromium, with a real Orthanc, in a network namespace of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.demo.archive import PLUGIN
from monai_anomalyclip.demo.studies import demo_seeds, demo_volume
from monai_anomalyclip.label.pages import COLOURS, fitted

pytestmark = pytest.mark.label_server

REPOSITORY = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]

LOOK = """
import base64, fcntl, json, shutil, socket, struct, subprocess, sys, urllib.request
from pathlib import Path
with socket.socket() as any_socket:  # loopback of a new namespace is down
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
from playwright.sync_api import sync_playwright
from pydicom import dcmread
from monai_anomalyclip.demo.studies import demo_seeds
from monai_anomalyclip.demo.volumes import write_dicom_series
from tools import ohif

folder, *words = sys.argv[1:]
folder, seen, asked = Path(folder), {}, set()
with ohif.label_demo(folder / "demo", words) as address, sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(ohif.CHROMIUM))
    page = browser.new_page(viewport={"width": 1500, "height": 700})
    page.on("request", lambda request: asked.add(request.url.split("/")[2] if "://" in request.url else "data"))
    page.goto(address)
    seen["first page"] = page.inner_text("body")
    seen["studies"] = ohif.studies(page, address)
    for kind, *name in (("CT",), ("MR",), ("CT", "Lung")):
        ohif.open_study(page, address, ohif.study_uid(address, kind, *name))
        kind = "".join((kind, *name))
        seen["panel"] = page.locator(".monaiLabelPanel input").first.input_value() == address + "/"
        for model in ("anomaly", "anomaly_levels"):
            seen[f"{kind} {model}"] = ohif.propose(page, model)
            for number in range(ohif.PANES):
                pane = page.locator("[data-cy='viewport-pane']").nth(number)
                pane.screenshot(path=folder / f"{kind}_{model}_{number}.png")
    seen["next"] = ohif.next_sample(page)
    # The results of `predict`, stored beside their series.
    write_dicom_series(folder / "series", next(demo_seeds("head_ct")), size=112, slices=10, slice_spacing=5.0)
    command = [sys.executable, "-m", "monai_anomalyclip", "predict", folder / "series", "-o", folder / "results"]
    subprocess.run([*command, "--bundle", words[-1].removeprefix("DEMO="), "--outputs", "default,pm"], check=True)
    # Of another study a segmentation of nothing, which is one empty frame.
    write_dicom_series(
        folder / "other", next(demo_seeds("brain_mr")), family="brain_mr", size=112, slices=10, slice_spacing=5.0
    )
    command[4:7] = [folder / "other", "-o", folder / "results" / "nothing"]
    subprocess.run([*command, "--bundle", words[-1].removeprefix("DEMO="), "--threshold", "0.999999"], check=True)
    (nothing,) = (folder / "results" / "nothing").glob("*_seg.dcm")
    seen["frames of nothing"] = int(dcmread(nothing).NumberOfFrames)
    settings = json.loads((folder / "demo" / "orthanc" / "orthanc.json").read_text())
    proof = base64.b64encode(":".join(*settings["RegisteredUsers"].items()).encode()).decode()
    for file in [nothing, *(folder / "results").glob("*.dcm")]:
        place = f"http://127.0.0.1:{settings['HttpPort']}/instances"
        request = urllib.request.Request(place, file.read_bytes(), {"Authorization": "Basic " + proof})
        urllib.request.urlopen(request).close()
    study = str(dcmread(file, stop_before_pixels=True).StudyInstanceUID)
    other = str(dcmread(nothing, stop_before_pixels=True).StudyInstanceUID)
    for kind, place in (("PMAP", study), ("SEG", study), ("SR", study), ("nothing", other)):
        page = browser.new_page(viewport={"width": 1500, "height": 700})
        seen[kind] = ohif.open_result(page, address, place, "SEG" if kind == "nothing" else kind)
        for number in range(10):
            page.locator("[data-cy='viewport-pane']").first.screenshot(path=folder / f"{kind}_{number}.png")
            page.mouse.move(850, 350)
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(700)
        page.close()
    browser.close()
seen["asked"] = sorted(asked - {address.split("/")[2], "data", ""})
print(json.dumps(seen))
"""


def test_the_panel_has_the_texts_that_are_changed(label_python: Path, caplog: pytest.LogCaptureFixture) -> None:
    (places,) = label_python.parents[1].glob("lib/python*/site-packages/monailabel/endpoints/static/ohif")
    panels = [text for path in places.glob("*.js") if "class MonaiLabelPanel" in (text := path.read_text())]
    assert len(panels) == 1
    assert fitted(panels[0]) != panels[0]
    assert caplog.messages == []  # each text was found


@pytest.fixture(scope="module")
def seen(
    label_python: Path, copy_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if shutil.which("chromium") is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    if shutil.which("Orthanc") is None or not PLUGIN.is_file():
        pytest.skip("Orthanc or its DICOMweb plug-in is missing: `apt-get install orthanc orthanc-dicomweb`")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here, and Orthanc binds all interfaces")
    folder = tmp_path_factory.mktemp("ohif")
    environment = label_python.parents[1]
    words = ["-o", f"{environment}/.installed", f"LABEL_VENV={environment}", f"DEMO={copy_bundle(folder)}"]
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", LOOK, str(folder), *words],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), folder


def coloured(picture: Path, colour: str) -> int:
    """Number of pixels that have the hue of a colour, however strongly it is blended with gray."""
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    strength = (pixels[..., 0] - pixels[..., 2]) / max(1, red - blue)
    expected = strength * (green - blue)
    found = (strength > 0.4) & (abs(pixels[..., 1] - pixels[..., 2] - expected) < 30)
    return int(found.sum())


@pytest.mark.nightly
def test_proposals_in_ohif(seen: tuple[dict[str, Any], Path]) -> None:
    said, folder = seen
    assert "Open OHIF" in said["first page"]
    assert said["asked"] == []  # nobody but the server
    assert said["panel"]
    assert sorted(row.split()[-2:] for row in said["studies"]) == [["CT", "10"]] * 4 + [["MR", "10"]] * 3
    for kind, family in (("CT", "head_ct"), ("MR", "brain_mr"), ("CTLung", "lung_ct")):
        phantom = demo_volume(family, next(demo_seeds(family)))
        place = phantom.affine[:3, :3] @ np.argwhere(phantom.mask).mean(0) + phantom.affine[:3, 3]
        label = said[f"{kind} anomaly"]["anomaly"]
        assert np.linalg.norm(np.array(label["middle"]) - place * [-1, -1, 1]) < 8  # mm
        assert 0.3 < label["count"] / phantom.mask.sum() < 3
        assert said[f"{kind} anomaly_levels"].keys() <= COLOURS.keys() - {"anomaly"}
        assert "anomaly_0.50" in said[f"{kind} anomaly_levels"]
        for pane in range(3):
            assert coloured(folder / f"{kind}_anomaly_{pane}.png", COLOURS["anomaly"]) > 100, (kind, pane)
            assert coloured(folder / f"{kind}_anomaly_levels_{pane}.png", COLOURS["anomaly_0.50"]) > 30, (kind, pane)


@pytest.mark.nightly
def test_next_sample_is_the_one_with_the_highest_score(seen: tuple[dict[str, Any], Path]) -> None:
    strategy, form = seen[0]["next"]
    assert strategy == "highest_score"
    shown = dict(line.split("\t") for line in form if "\t" in line)
    assert 0.5 < float(shown["Anomaly score"]) <= 1
    assert 0 <= int(shown["Most suspicious slice (from 0)"]) < 10


@pytest.mark.nightly
def test_results_of_predict_open_beside_their_series(seen: tuple[dict[str, Any], Path]) -> None:
    said, folder = seen
    assert said["frames of nothing"] == 1
    for kind in ("PMAP", "SEG", "SR", "nothing"):
        assert said[kind] == [], kind
        colourful = []
        for number in range(10):
            pixels = np.asarray(Image.open(folder / f"{kind}_{number}.png").convert("RGB")).astype(int)
            middle = pixels[100:-60, 100:-100]  # without what is written at the edges
            colourful.append(int((np.ptp(middle, axis=-1) > 80).sum()))
            assert middle.max() > 200  # the series itself
        assert (max(colourful) > 500) is (kind in ("PMAP", "SEG")), (kind, colourful)  # a report draws nothing
