# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What `monai-anomalyclip merge` takes for many inputs: synthetic records, time, memory, and size of what it writes.

Each size runs in a process of its own, whose peak memory is that of the whole program. With `--open` the report is
opened in headless Chromium (needs Playwright).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """examples:
  python benchmarks/archive_scale.py
  python benchmarks/archive_scale.py --sizes 1000 10000 100000 --open
"""

_FRAMES = 20
_PICTURES = 700  # kept for the report; those of others are not made, for they would not be read


def make_records(folder: Path, count: int) -> None:
    """Write a folder of results of `count` CT series of 20 slices, without their large files.

    Args:
        folder: to be filled.
        count: number of inputs.
    """
    import numpy as np

    from monai_anomalyclip.data.work_list import WorkUnit, write_work_list
    from monai_anomalyclip.writers.finished import InputState, ResultFile, Slices
    from monai_anomalyclip.writers.output_folder import OutputFolder
    from monai_anomalyclip.writers.record import InputRecord, Model, Timings
    from monai_anomalyclip.writers.tables import made_with

    results = OutputFolder(folder)
    made = made_with(Model(backbone="ViT-L-14-336", backbone_sha256="0" * 64), {"threshold": 0.5}, "cpu")
    name = "ct_0000000000000000"
    scores = [round(0.01 * index, 6) for index in range(_FRAMES)]
    record = InputRecord(
        name=name, source="dicom", kind="volume", modality="CT", files_used=_FRAMES, frames=_FRAMES, slice_axis=2,
        plane="axial", geometry={"verdict": "regular", "spacing": [0.5, 0.5], "slice_spacing": 5.0},
        scores=scores, anomaly_score=0.5, score_margin=0.25, map_max=0.9, threshold=0.5, threshold_source="the bundle",
        most_suspicious=[{"index": index, "score": scores[index]} for index in range(5)], anomalous_fraction=0.01,
        anomalous_volume_ml=1.0, timings=Timings(read_s=1.0, score_s=2.0, write_s=0.5), outputs=[f"{name}_seg.dcm"],
    )  # fmt: skip
    state = InputState(
        name=name, state="finished", content="0" * 64, started="2026-01-01T00:00:00+00:00", made_with=made,
        files=(ResultFile(path=f"{name}_seg.dcm", bytes=1, sha256="0" * 64),), record=record,
        slices=Slices(map_max=scores, area_fraction=scores, margin=scores, position_mm=scores),
    )  # fmt: skip
    text = state.model_dump_json()
    names = [f"ct_{index * 2654435761 % 2**64:016x}" for index in range(count)]
    units = [WorkUnit(own[3:], "dicom", (own,), {"0": own}) for own in names]
    write_work_list(folder / "work.jsonl", units, {})
    for index, own in enumerate(names):
        margin = f'"score_margin":{index % 997 / 997:.6f}'
        changed = text.replace(name, own).replace('"score_margin":0.25', margin)
        (folder / f"{own}_record.json").write_text(changed)
        (folder / f"{own}_seg.dcm").write_bytes(b"x")
        if index % 997 > 997 - 1 - _PICTURES * 997 // max(count, _PICTURES):  # of the most suspicious
            results.keep_picture(own, np.random.default_rng(index).integers(0, 255, (300, 600, 3), dtype=np.uint8))


def merge(folder: Path) -> dict[str, float]:
    """Merge a folder in a new process.

    Returns:
        exit status, wall and processor seconds, peak memory in MiB, and sizes of what was written in MiB.
    """
    script = (
        "import json, resource, sys, time\n"
        "from pathlib import Path\n"
        "from monai_anomalyclip.cli import main\n"
        "begun = time.perf_counter()\n"
        "status = main(['merge', sys.argv[1], '--list', sys.argv[1] + '/work.jsonl'])\n"
        "spent = resource.getrusage(resource.RUSAGE_SELF)\n"
        # Not ru_maxrss, which begins with that of the process that started this one.
        "peak = int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "print(json.dumps({'status': status, 'wall_s': time.perf_counter() - begun,\n"
        "    'processor_s': spent.ru_utime + spent.ru_stime, 'peak_mib': peak / 1024}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    with (folder / "inputs.csv").open() as stream:
        found["inputs"] = sum(1 for _ in stream) - 1
    for name in ("inputs.csv", "scores.csv", "results.json", "report.html"):
        found[f"{name}_mib"] = (folder / name).stat().st_size / 2**20
    found["pages"] = 1 + len(list(folder.glob("report/page_*.html")))
    return found


def opened(folder: Path) -> dict[str, float]:
    """Seconds and memory of the report's first page in a browser."""
    import report_size
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = driver.chromium.launch(executable_path=program, args=list(report_size.OPTIONS))
        found: dict[str, float] = report_size.opened(browser, folder)
        browser.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="numbers of inputs"
    )
    parser.add_argument("--open", action="store_true", help="also open the report in Chromium")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    options = parser.parse_args(arguments)
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            make_records(Path(folder), size)
            made_s = time.perf_counter() - begun
            rows.append({**merge(Path(folder)), "made_s": made_s})
            if options.open:
                rows[-1] |= opened(Path(folder))
        print("  ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
