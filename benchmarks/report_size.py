# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How large the report's pages are, and how soon they show something: in headless Chromium, opened from a folder.

Reports of 1, 100 and 10,000 inputs (pictures of noise on a gradient, so that they compress as photographs do), and a
report of one CT of 300 slices of 512 x 512. Needs Playwright and Chromium. Seconds are those of the wall: let nothing
else run.

    python benchmarks/report_size.py --json report_size.json
    python benchmarks/report_size.py --inputs 1 100 --slices 0
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from end_to_end import make_ct
from measuring import machine, write_record
from playwright.sync_api import sync_playwright

from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.writers.findings import Findings, finished_record, view_of
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.html_report import KeptFiles, ReportSource, write_html_report
from monai_anomalyclip.writers.overlays import jpeg, thumbnail
from monai_anomalyclip.writers.record import InputRecord, Model
from monai_anomalyclip.writers.slice_pictures import montage
from monai_anomalyclip.writers.tables import RunDocument, made_with, ranked_records
from monai_anomalyclip.writers.viewer_data import preview

SLICE = 512
FIRST_PAGE = 100  # inputs whose viewers are made
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
THRESHOLDS = """() => {
  const input = document.querySelector("[data-control='threshold']"), times = [];
  for (let step = 1; step <= 20; step++) {
    const begun = performance.now();
    input.value = 0.04 * step;
    input.dispatchEvent(new Event("input"));
    times.push(performance.now() - begun);
  }
  return times.sort((one, other) => one - other)[10];
}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, nargs="*", default=[1, 100, 10_000], help="numbers of inputs")
    parser.add_argument("--slices", type=int, default=300, help="of the CT; 0: none (default: 300)")
    parser.add_argument("--json", type=Path, help="file of the figures")
    given = parser.parse_args(arguments)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        parser.error("Chromium is not installed (apt-get install chromium)")
    record: dict[str, Any] = {"machine": machine(torch.device("cpu")), "reports": []}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(OPTIONS))
        record["browser"] = browser.version
        for count in given.inputs:
            made = many_inputs(Path(name) / str(count), count)
            folder = Path(name) / str(count)
            record["reports"].append({"inputs": count, **made, **opened(browser, folder), **viewed(browser, folder)})
            print(record["reports"][-1], flush=True)
            shutil.rmtree(folder)
        if given.slices:
            made = one_ct(Path(name) / "ct", given.slices)
            record["ct"] = {
                "slices": given.slices,
                **made,
                **opened(browser, Path(name) / "ct"),
                **viewed(browser, Path(name) / "ct"),
                **stepped(browser, Path(name) / "ct"),
            }
            print(record["ct"])
        browser.close()
    if given.json:
        write_record(given.json, record)
    return 0


def kept(folder: Path, name: str) -> KeptFiles:
    """Where the pictures of an input lie."""
    place = folder / ".report" / name
    return KeptFiles(place.with_suffix(".jpg"), place.with_suffix(".small.jpg"), place.with_suffix(".json"))


def written(folder: Path, records: list[InputRecord]) -> dict[str, Any]:
    """Write a report; bytes of its first page and of all, and seconds."""
    made = made_with(Model(backbone="b", backbone_sha256="0" * 64), {}, "cpu")
    document = RunDocument.of(records, made, {}, datetime(2026, 1, 2, tzinfo=timezone.utc))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    states = {record.name: InputState(name=record.name, state="finished", record=record) for record in records}
    ranked = [record.name for record in ranked_records(records)]
    source = ReportSource(ranked, [], lambda names: [states[name] for name in names], lambda name: kept(folder, name))
    write_html_report(document, source, folder / "report.html")
    spent = time.process_time() - begun
    return {
        "first_page_bytes": (folder / "report.html").stat().st_size,
        "pages": 1 + len(list(folder.glob("report/page_*.html"))),
        "write_cpu_s": round(spent, 2),
        "more_memory_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
    }


def many_inputs(folder: Path, count: int) -> dict[str, Any]:
    """A report of single pictures, each of 1024 x 400 with its overlay; those of the first page with their viewers."""
    (folder / ".report").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 160, 1024)[None, :, None] + rng.normal(0, 4, (400, 1024, 3))
    picture = ramp.clip(0, 255).astype(np.uint8)
    encoded, small = jpeg(picture), jpeg(thumbnail(picture))
    records = []
    for index in range(count):
        name = f"dx_{index:016x}"
        kept(folder, name).picture.write_bytes(encoded)
        kept(folder, name).thumbnail.write_bytes(small)
        score = float(rng.random())
        records.append(
            InputRecord(
                name=name, source="dicom", kind="frame", modality="DX", study=f"{index // 2:08x}", frames=1,
                scores=[score], anomaly_score=score, score_margin=2 * score, threshold=0.5, anomalous_fraction=0.01,
                outputs=[f"{name}_heat.png", f"{name}_mask.png", f"{name}_overlay.jpg", f"{name}_sr.dcm"],
            )
        )  # fmt: skip
    plain = torch.from_numpy(picture).permute(2, 0, 1)
    rows, columns = torch.meshgrid(torch.arange(400), torch.arange(1024), indexing="ij")
    heat = torch.exp(-((rows - 150) ** 2 + (columns - 600) ** 2) / 3000.0)[None]
    for record in ranked_records(records)[:FIRST_PAGE]:
        findings = Findings.of(np.array(record.scores), heat.numpy(), heat.numpy() >= 0.5)
        text = preview(record.name, None, plain, heat, findings, None, 0.5)
        kept(folder, record.name).preview.write_text(text)
    return written(folder, records)


def one_ct(folder: Path, count: int) -> dict[str, Any]:
    """A report of one CT with its viewer; also seconds of making its preview."""
    (folder / ".report").mkdir(parents=True)
    make_ct(folder / "ct", count)
    ((name, source),) = InputCatalogue(folder / "ct").sources.items()
    image = source.load()
    rows, columns, slices = torch.meshgrid(*(torch.arange(side) for side in (SLICE, SLICE, count)), indexing="ij")
    heat = torch.exp(-((rows - 200) ** 2 + (columns - 300) ** 2 + 9 * (slices - count // 3) ** 2) / 3000.0)[None]
    view = view_of(source, image, "auto")
    maps = view.to_slices(heat)[:, 0].numpy()
    findings = Findings.of(maps.max(axis=(1, 2)), maps, maps >= 0.5)
    begun = time.process_time()
    text = preview(name, source, image, heat, findings, view, 0.5)
    spent = time.process_time() - begun
    kept(folder, name).preview.write_text(text)
    kept(folder, name).picture.write_bytes(jpeg(montage(image.as_tensor(), heat, heat >= 0.5, view)))
    record = finished_record(name, source, image, view, findings, 0.5, {}, [], [])
    return {"preview_cpu_s": round(spent, 2), "preview_bytes": len(text), **written(folder, [record])}


def opened(browser: Any, folder: Path) -> dict[str, Any]:
    """Seconds until the first picture shows, until the page is loaded, and of a search in its table."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, bypass_csp=True)
    begun = time.perf_counter()
    page.goto((folder / "report.html").as_uri(), wait_until="commit")
    page.wait_for_function("[...document.images].some(image => image.complete && image.naturalWidth)")
    first = time.perf_counter() - begun
    page.wait_for_load_state("load")
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    page.fill("#search", "0000")
    page.wait_for_function("document.getElementById('counted').textContent !== ''")
    searched = time.perf_counter() - begun
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    page.close()
    return {
        "first_picture_s": round(first, 2),
        "loaded_s": round(loaded, 2),
        "search_s": round(searched, 3),
        "heap_mib": round(heap / 2**20),
    }


def viewer(browser: Any, folder: Path) -> tuple[Any, float]:
    """A page with the viewer of its first input, and seconds until that shows something."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, bypass_csp=True)
    page.goto((folder / "report.html").as_uri())
    begun = time.perf_counter()
    page.click("button.open >> nth=0")
    page.wait_for_selector(".place[data-shown]")
    return page, time.perf_counter() - begun


def viewed(browser: Any, folder: Path) -> dict[str, Any]:
    """Of the first input's viewer: seconds until it shows something, and milliseconds of another threshold."""
    page, shown = viewer(browser, folder)
    threshold = page.evaluate(THRESHOLDS)
    page.close()
    return {"viewer_s": round(shown, 2), "threshold_ms": round(threshold, 1)}


def stepped(browser: Any, folder: Path) -> dict[str, Any]:
    """Milliseconds of another slice."""
    page, _ = viewer(browser, folder)
    page.locator("[data-control='slice']").focus()
    begun = time.perf_counter()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    at = page.input_value("[data-control='slice']")
    page.wait_for_selector(f".place[data-shown='{at}']")
    step = (time.perf_counter() - begun) / 40
    page.close()
    return {"slice_ms": round(1000 * step, 1)}


if __name__ == "__main__":
    raise SystemExit(main())
