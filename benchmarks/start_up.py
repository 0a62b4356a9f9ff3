# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How long the commands take that run no model, as ratios to `python -c "import numpy, pydicom"`.

`inspect` reads the headers of a synthetic study of 20 slices. The ways take turns, so that whatever else the machine
does meets all of them alike; seconds of the processor are disturbed less than those on the clock.

    python benchmarks/start_up.py --repeats 7
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from monai_anomalyclip.demo.volumes import write_dicom_series

COMMANDS = {
    "inspect, 20 slices": ["inspect", "study"],
    "datalist": ["datalist", "folder", "own", "-o", "datalist.json", "--overwrite"],
    "weights show": ["weights", "show"],
    "completion": ["completion", "bash"],
    "doctor": ["doctor"],
}
YARDSTICK = [sys.executable, "-c", "import numpy, pydicom"]
TARGET = 4.0


def main() -> int:
    """Print the table; exit status 1 when `inspect` takes more than four times the yardstick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="of every way (default: 7)")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        ways = {"import numpy, pydicom": YARDSTICK}
        ways |= {key: [sys.executable, "-m", "monai_anomalyclip", *words] for key, words in COMMANDS.items()}
        times: dict[str, list[tuple[float, float]]] = {key: [] for key in ways}
        for _ in range(repeats + 1):
            for key, command in ways.items():
                times[key].append(seconds(command, folder))
    medians = {
        key: [statistics.median(column) for column in zip(*rows[1:], strict=True)] for key, rows in times.items()
    }
    wall, cpu = medians["import numpy, pydicom"]
    print("| way | seconds | of the processor | ratio | of the processor |\n|---|---|---|---|---|")
    for key, (own_wall, own_cpu) in medians.items():
        print(f"| {key} | {own_wall:.2f} | {own_cpu:.2f} | {own_wall / wall:.2f} | {own_cpu / cpu:.2f} |")
    return int(medians["inspect, 20 slices"][1] > TARGET * cpu)


def prepare(folder: Path) -> None:
    """A study, and two folders with a picture each."""
    from PIL import Image

    write_dicom_series(folder / "study", seed=3)
    for place in ("good", "bad"):
        (folder / "own" / place).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "own" / place / "picture.png")


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds that a command took on the clock and of the processor; the first run of all fills the caches."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "MONAI_ANOMALYCLIP_WEIGHTS": str(folder / "weights")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{command[1:]} failed: {done.stderr[-500:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
