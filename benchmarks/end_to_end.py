# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What `predict` takes from end to end with the demonstration's network: pictures, and a CT of many slices.

Each run is a process of its own; runs of this tree and of another (`--against`, a checkout) take turns. Seconds are
those of the processor (user and system), for the machine may have other work, and those on the clock; of pictures they
are those beyond a run on one picture, which holds the start. Stages are timed in this process, of one picture, and from
them is calculated what a machine with a fast network would do.

    python benchmarks/end_to_end.py --json end_to_end.json
    python benchmarks/end_to_end.py --against ../before --repeats 2 --workers 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, write_record
from PIL import Image
from small_files import make_slice

from monai_anomalyclip import Predictor
from monai_anomalyclip.demo.network import demo_network
from monai_anomalyclip.demo.volumes import make_volume
from monai_anomalyclip.transforms.clip_preprocess import clip_normalize_resize
from monai_anomalyclip.writers.overlays import gray_png, jpeg

TREE = Path(__file__).resolve().parents[1]
BUNDLE = "bundles/anomalyclip_demo"
PROMPTS = "prompts.pt"
PICTURE = (600, 800)
SLICE = 512
NETWORK_RATE, CORES = 400, 16  # images/s of a GPU, and cores beside it, that a rate is calculated for


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200, help="of 600 x 800; 0: none (default: 200)")
    parser.add_argument("--slices", type=int, default=300, help="of the CT, 512 x 512; 0: no CT (default: 300)")
    parser.add_argument("--repeats", type=int, default=1, help="of every run (default: 1)")
    parser.add_argument("--against", type=Path, help="a checkout of another state, for ratios")
    parser.add_argument("--workers", type=int, default=0, help="run this tree with so many as well (default: 0)")
    parser.add_argument("--json", type=Path, help="file of the figures")
    given = parser.parse_args(arguments)
    trees = {"this tree": (TREE, 0)} | ({} if given.against is None else {"before": (given.against.resolve(), 0)})
    if given.workers:
        trees[f"this tree, {given.workers} workers"] = TREE, given.workers
    record: dict[str, Any] = {"machine": machine(torch.device("cpu")), "repeats": given.repeats}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)  # untuned prompts: how noisy their maps are decides what packing takes
        demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4).save_prompts(folder / PROMPTS)
        if given.pictures:
            sizes = make_pictures(folder / "pictures", given.pictures)
            make_pictures(folder / "one", 1)
            record["pictures"] = compared(trees, given.repeats, folder, "pictures", given.pictures, sizes)
            record["stages"] = stages(folder / "one" / "p0000.jpg", folder / "staged")
            record["calculated"] = calculated(record["stages"], record["pictures"]["this tree"]["cpu_ms_each"])
        if given.slices:
            size = make_ct(folder / "ct", given.slices)
            record["ct"] = compared(trees, given.repeats, folder, "ct", given.slices, size)
    for what in ("pictures", "ct"):
        if what in record:
            print(table(what, record[what]))
    for stage, milliseconds in record.get("stages", {}).items():
        print(f"{stage}: {milliseconds:.1f} ms of the processor")
    for what, figure in record.get("calculated", {}).items():
        print(f"calculated, {what}: {figure:.2f}")
    if given.json:
        write_record(given.json, record)
    return 0


def make_pictures(folder: Path, count: int) -> int:
    """Write JPEG pictures of coloured clouds with some noise, about 75 kB each; their bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        clouds = Image.fromarray(rng.integers(40, 216, (9, 12, 3), dtype=np.uint8))
        pixels = np.asarray(clouds.resize(PICTURE[::-1], Image.Resampling.BICUBIC), np.float32)
        pixels = np.clip(pixels + rng.normal(0, 4, PICTURE)[..., None], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"p{index:04d}.jpg", quality=85)
    return total_bytes(folder)


def make_ct(folder: Path, slices: int) -> int:
    """Write a CT of the head phantom, one file per slice, planes repeated with noise of their own; the bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    planes = make_volume("head_ct", 0, size=SLICE, slices=10, slice_spacing=9).image
    for index in range(slices):
        header = make_slice()
        header.Rows = header.Columns = SLICE
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
        header.InstanceNumber, header.ImagePositionPatient = index + 1, [0, 0, index]
        header.SliceThickness = 1
        pixels = planes[:, :, index * planes.shape[2] // slices].T + rng.integers(-8, 9, (SLICE, SLICE))
        header.PixelData = np.clip(pixels + 1024, 0, 4095).astype("<u2").tobytes()
        header.save_as(folder / f"s{index:04d}.dcm", enforce_file_format=True)
    return total_bytes(folder)


def total_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(tree: Path, folder: Path, source: str, results: Path, workers: int = 0) -> dict[str, float]:
    """Score a folder of inputs by a tree's `predict`: seconds, and the greatest memory of one of its processes."""
    command = ["predict", str(folder / source), "-o", str(results), "--bundle", str(tree / BUNDLE)]
    command += ["--prompts", str(folder / PROMPTS), "--workers", str(workers)]
    command += ["--preset", "dicom"] if source == "ct" else []  # trees may choose windows in other ways
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    begun = time.perf_counter()
    with (results.parent / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "monai_anomalyclip", *command], cwd=tree, env=environment, stdout=log, stderr=log
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        log_text = (results.parent / "log.txt").read_text()
        raise RuntimeError(f"predict of {tree.name!r} failed: {log_text[-800:]}")
    return {
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.perf_counter() - begun,
        "peak_mib": used.ru_maxrss / 1024,  # kB on Linux
        "bytes": total_bytes(results),
    }


def compared(
    trees: dict[str, tuple[Path, int]], repeats: int, folder: Path, source: str, count: int, input_bytes: int
) -> dict[str, Any]:
    """Medians of the runs of each tree, and the ratios of the other tree's to this one's."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for repeat in range(repeats):
        for name in list(trees)[:: 1 if repeat % 2 == 0 else -1]:
            place = Path(tempfile.mkdtemp(dir=folder))
            tree, workers = trees[name]
            found = run(tree, folder, source, place / "all", workers)
            start = run(tree, folder, "one", place / "one", workers) if source == "pictures" else {}
            for clock in ("cpu", "wall"):
                beyond = found[f"{clock}_s"] - start.get(f"{clock}_s", 0.0)
                found[f"{clock}_ms_each"] = 1000 * beyond / max(1, count - bool(start))
            found["bytes_each"] = found["bytes"] / count
            runs[name].append(found)
    result: dict[str, Any] = {"count": count, "input_bytes_each": input_bytes / count}
    for name, rows in runs.items():
        result[name] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    if "before" in result:
        keys = ("cpu_s", "cpu_ms_each", "wall_s", "wall_ms_each", "peak_mib", "bytes")
        result["ratio"] = {key: result["before"][key] / result["this tree"][key] for key in keys}
        least, most = (
            f([row["cpu_ms_each"] for row in runs[name]])
            for f, name in ((min, "before"), (max, "this tree"))  # type: ignore[operator]
        )
        result["ratio"]["cpu_ms_each_least"] = least / most
    return result


def stages(picture: Path, folder: Path, repeats: int = 20) -> dict[str, float]:
    """Milliseconds of the processor that one picture takes to decode, to score, and to write.

    "network" is its pass alone, "cheapest encoding" that of the three files of a picture, drawn already.
    """
    predictor = Predictor(TREE / BUNDLE, folder.parent / PROMPTS, precision=None)
    prediction = predictor(picture)
    folder.mkdir()
    pixels = np.asarray(Image.open(picture))
    network: Any = predictor.network
    batch = clip_normalize_resize(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], [network.image_size] * 2)
    heat = np.rint(np.asarray(prediction.anomaly_map).squeeze() * 255).astype(np.uint8)
    panels = np.concatenate([pixels, pixels], axis=1)

    def forward() -> None:
        with network.fixed_prompts():
            network.predict(batch)

    def encode() -> None:
        jpeg(panels, 90), gray_png(heat), gray_png((heat > 76).astype(np.uint8) * 255)

    def write() -> None:
        prediction.save(folder / str(len(list(folder.iterdir()))), ["png"])

    calls: dict[str, Callable[[], Any]] = {
        "decode": lambda: np.asarray(Image.open(picture)),
        "network": forward,
        "cheapest encoding": encode,
        "read and score": lambda: predictor(picture),
        "score": lambda: predictor(pixels),
        "write": write,
    }
    return {name: cpu_ms(call, repeats) for name, call in calls.items()}


def calculated(milliseconds: dict[str, float], each: float) -> dict[str, float]:
    """What follows from the stages and from the processor time of each picture of a run.

    Args:
        milliseconds: of :func:`stages`.
        each: milliseconds of a picture in a run.
    """
    least = sum(milliseconds[stage] for stage in ("decode", "network", "cheapest encoding"))
    beside = each - milliseconds["network"]
    return {
        "share of a run that decoding, network and cheapest encoding take": least / each,
        f"pictures/s on {CORES} cores with a network of {NETWORK_RATE} images/s": min(
            NETWORK_RATE, (CORES - 1) * 1000 / beside
        ),
    }


def cpu_ms(call: Callable[[], Any], repeats: int) -> float:
    """The least milliseconds of the processor that a call took."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return 1000 * min(taken)


def table(what: str, found: dict[str, Any]) -> str:
    """The figures of pictures or of the CT as Markdown."""
    lines = [
        f"| {what}: {found['count']} | processor ms each | ms each on the clock | processor s in all | "
        "s on the clock | peak MiB | kB of results each |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        if isinstance(row, dict) and name != "ratio":
            lines.append(
                f"| {name} | {row['cpu_ms_each']:.1f} | {row['wall_ms_each']:.1f} | {row['cpu_s']:.1f} | "
                f"{row['wall_s']:.1f} | {row['peak_mib']:.0f} | {row['bytes_each'] / 1000:.0f} |"
            )
    if "ratio" in found:
        ratio = found["ratio"]
        lines.append(
            f"| ratio | {ratio['cpu_ms_each']:.2f} | {ratio['wall_ms_each']:.2f} | {ratio['cpu_s']:.2f} | "
            f"{ratio['wall_s']:.2f} | {ratio['peak_mib']:.2f} | {ratio['bytes']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
