# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Look at proposals in the OHIF of a MONAI Label server, as a reader does: open a study, connect, run a model."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
CHROMIUM = (
    "--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--use-gl=angle",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
"""Options of a browser that draws volumes without a graphics card."""

PANES = 3
_MILLISECONDS = 120_000

# Counts and the middle (in millimetres, LPS) of each label's voxels, as OHIF holds them.
_LABELS = """() => {
    const volume = window.services.segmentationService.getLabelmapVolume('1');
    const values = volume.voxelManager.getCompleteScalarDataArray();
    const [columns, rows] = volume.dimensions, found = {};
    values.forEach((value, at) => {
        if (!value) return;
        const index = [at % columns, Math.floor(at / columns) % rows, Math.floor(at / columns / rows)];
        const place = volume.imageData.indexToWorld(index);
        const sum = found[value] ??= {count: 0, middle: [0, 0, 0]};
        sum.count += 1;
        place.forEach((number, axis) => { sum.middle[axis] += number; });
    });
    const segments = window.services.segmentationService.getSegmentation('1').segments, named = {};
    for (const [value, sum] of Object.entries(found)) {
        named[segments[value].label] = {count: sum.count, middle: sum.middle.map(number => number / sum.count)};
    }
    return named;
}"""

# Every pane at a place of the patient.
_JUMP = """place => {
    for (const engine of window.cornerstone.getRenderingEngines()) {
        for (const viewport of engine.getViewports()) {
            const camera = viewport.getCamera(), normal = camera.viewPlaneNormal;
            const away = normal.reduce((sum, n, axis) => sum + n * (place[axis] - camera.focalPoint[axis]), 0);
            const moved = point => point.map((number, axis) => number + normal[axis] * away);
            viewport.setCamera({focalPoint: moved(camera.focalPoint), position: moved(camera.position)});
            viewport.render();
        }
    }
}"""


@contextlib.contextmanager
def label_demo(folder: Path, words: Sequence[str] = (), seconds: float = 600) -> Iterator[str]:
    """``make label-demo`` in a folder of its own, at a free port; its address. It ends with the context.

    Args:
        folder: of what it writes.
        words: further words for make.
        seconds: how long it may take to answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["make", "label-demo", f"LABEL_DEMO={folder}", f"LABEL_PORT={port}", *words]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/info/", timeout=5).read()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)
        yield address
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)


def studies(page: Any, address: str) -> list[str]:
    """Texts of the rows of OHIF's list of studies.

    Args:
        page: of Playwright.
        address: of the server.
    """
    page.goto(f"{address}/ohif/")
    page.wait_for_selector("[data-cy='study-list-results'] tr", timeout=_MILLISECONDS)
    page.wait_for_timeout(1000)
    page.get_by_text("Confirm and Hide").click()
    texts = page.locator("[data-cy='study-list-results'] tr").all_inner_texts()
    return list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))


def study_uid(address: str, modality: str, name: str = "Head") -> str:
    """Study Instance UID of the demonstration's first study of a kind, by its Patient ID; it has a lesion.

    Args:
        address: of the server.
        modality: CT or MR.
        name: of the patient: Head or Lung.
    """
    with urllib.request.urlopen(f"{address}/proxy/dicom/qido/studies") as answer:  # the proxy drops what is asked
        content = answer.read()
    found = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    of_kind = [one for one in found if _kind(one) == (modality, f"Phantom^{name}")]
    (_, uid) = min((one["00100020"]["Value"][0], str(one["0020000D"]["Value"][0])) for one in of_kind)
    return uid


def _kind(study: dict[str, Any]) -> tuple[str, str]:
    return study["00080061"]["Value"][0], study["00100010"]["Value"][0]["Alphabetic"]


def open_study(page: Any, address: str, study: str) -> None:
    """Open a study in the mode MONAI Label, and connect to the server that the panel proposes."""
    page.goto(f"{address}/ohif/monai-label?StudyInstanceUIDs={study}")
    page.wait_for_function(
        f"document.querySelectorAll('[data-cy=\"viewport-pane\"] canvas').length >= {PANES}", timeout=_MILLISECONDS
    )
    page.wait_for_timeout(3000)
    page.locator(".monaiLabelPanel button").first.click()
    page.wait_for_selector("text=Auto-Segmentation", timeout=_MILLISECONDS)
    page.wait_for_timeout(2000)  # the panel sets its colours after a second


def propose(page: Any, model: str) -> dict[str, Any]:
    """Run a model and put the panes where its labels are; what OHIF then holds of each label."""
    page.locator(".tab-content select.selectBox, .tab-content select").nth(1).select_option(model)
    with page.expect_response(lambda response: f"/infer/{model}" in response.url, timeout=_MILLISECONDS):
        page.get_by_title("Run Segmentation", exact=True).click()
    page.wait_for_timeout(1500)
    labels: dict[str, Any] = page.evaluate(_LABELS)
    if labels:
        page.evaluate(_JUMP, max(labels.items())[1]["middle"])
    page.wait_for_timeout(1500)
    return labels


def open_result(page: Any, address: str, study: str, kind: str) -> list[str]:
    """Open a study in OHIF's own mode, and one of its results (SEG, PMAP, SR); what the page complains of."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if "Error:" in message.text[:20] else None)
    page.goto(f"{address}/ohif/viewer?StudyInstanceUIDs={study}")
    result = page.locator("[data-cy^='study-browser-thumbnail']", has_text=kind).first
    result.wait_for(timeout=_MILLISECONDS)
    page.wait_for_timeout(3000)
    result.dblclick()
    page.wait_for_timeout(6000)
    for name in ("Yes", "LOAD"):  # whether a segmentation is to be taken into the view
        if (button := page.get_by_text(name, exact=True)).count():
            button.first.click()
            page.wait_for_timeout(3000)
    return said


def next_sample(page: Any) -> tuple[str, list[str]]:
    """The strategy that the panel proposes, and the lines of what it then offers."""
    page.get_by_text("Active Learning", exact=True).click()
    strategy: str = page.locator("select.actionInput").first.input_value()
    page.get_by_role("button", name="Next Sample").click()
    form = page.locator(".nextSampleForm")
    form.wait_for(timeout=_MILLISECONDS)
    return strategy, form.inner_text().splitlines()
