# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the dual-path vision pass against its plain transcription: same weights, same input, same run.

The passes take turns, so that a busy machine slows all of them. Peak memory on a CPU is that of a process of its own
per pass (on a GPU: what its allocator gave out at most). The weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from measuring import write_record
from open_clip.model import CLIP
from plain_forward import READINGS, plain_forward
from torch import Tensor

from monai_anomalyclip.networks import DualPathVision, build_backbone
from monai_anomalyclip.networks.dpam import compute_tower

OURS = "dual_path"
MEBIBYTE = 2**20
EXAMPLES = """examples:
  python benchmarks/forward.py                                          full size: ViT-L/14@336 at 518, minutes on a CPU
  python benchmarks/forward.py --model ViT-B-16-quickgelu --image-size 224 --repeats 5
  python benchmarks/forward.py --baselines published --dtype float32 --output forward.json
  python benchmarks/forward.py --device cuda
"""


@dataclass(frozen=True)
class Setup:
    """What one pass needs to know; small, because it is sent to child processes."""

    model: str
    image_size: int
    batch_size: int
    dpam_start: int
    device: str
    threads: int


def build(setup: Setup) -> tuple[CLIP, Tensor]:
    """The CLIP with random weights, equal in every process, and a batch of noise."""
    torch.set_num_threads(setup.threads)
    torch.manual_seed(0)
    path = Path(setup.model)
    name: str | dict[str, Any] = json.loads(path.read_text()) if path.suffix == ".json" else setup.model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        clip = build_backbone(name, None).clip.to(setup.device)
    image = torch.randn(setup.batch_size, 3, setup.image_size, setup.image_size).to(setup.device)
    return clip, image


def make_pass(variant: str, clip: CLIP, image: Tensor, setup: Setup, dtype: str) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function without arguments that runs one pass to its end."""
    vision = DualPathVision((len(clip.visual.transformer.resblocks),), setup.dpam_start, ("vv",))
    device = torch.device(setup.device)

    def run() -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            if variant == OURS:
                global_features, (patch_features,) = vision(compute_tower(clip.visual), image)
            else:
                global_features, patch_features = plain_forward(
                    clip, image, dpam_start=setup.dpam_start, reading=variant
                )
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return global_features.float(), patch_features.float()

    return run


def peak_memory(variant: str, setup: Setup, dtype: str) -> dict[str, float]:
    """Peak of a whole process that runs the pass twice, and what of it came on top of the loaded model, in MiB."""
    clip, image = build(setup)
    run = make_pass(variant, clip, image, setup, dtype)
    if torch.device(setup.device).type == "cuda":
        run()
        torch.cuda.reset_peak_memory_stats(setup.device)
        before = float(torch.cuda.memory_allocated(setup.device))
        run()
        peak = float(torch.cuda.max_memory_allocated(setup.device))
    else:
        process, stop = psutil.Process(), threading.Event()
        before = float(process.memory_info().rss)
        seen = [before]

        def sample() -> None:
            while not stop.wait(0.002):
                seen.append(float(process.memory_info().rss))

        sampler = threading.Thread(target=sample)
        sampler.start()
        run()
        run()
        stop.set()
        sampler.join()
        peak = max(seen)
    return {"peak_mib": peak / MEBIBYTE, "above_model_mib": (peak - before) / MEBIBYTE}


def measure_times(runs: dict[str, Callable[[], tuple[Tensor, Tensor]]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each pass; the passes take turns and the order is reversed each time."""
    seconds: dict[str, list[float]] = {variant: [] for variant in runs}
    for repeat in range(repeats):
        for variant in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            start = time.perf_counter()
            runs[variant]()
            seconds[variant].append(time.perf_counter() - start)
    return seconds


def relative_difference(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> float:
    """Norm of the difference over norm of the right one, the larger of global and patch features."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(left, right, strict=True))


def measure(setup: Setup, dtypes: list[str], baselines: list[str], repeats: int) -> dict[str, Any]:
    """All figures of one run, as they are written to ``--output``."""
    clip, image = build(setup)
    variants = [OURS, *baselines]
    exact = make_pass(baselines[0], clip, image, setup, "float32")()
    figures: dict[str, Any] = {}
    for dtype in dtypes:
        runs = {variant: make_pass(variant, clip, image, setup, dtype) for variant in variants}
        features = {variant: run() for variant, run in runs.items()}  # the warm-up, too
        seconds = measure_times(runs, repeats)
        figures[dtype] = {
            variant: {
                "seconds_median": statistics.median(seconds[variant]),
                "seconds_min": min(seconds[variant]),
                "seconds_max": max(seconds[variant]),
                "difference_from_plain_float32": relative_difference(features[variant], exact),
            }
            for variant in variants
        }
    del clip, image, exact, runs, features
    for dtype in dtypes:
        for variant in variants:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                figures[dtype][variant] |= pool.submit(peak_memory, variant, setup, dtype).result()
        ours = figures[dtype][OURS]
        for baseline in baselines:
            plain = figures[dtype][baseline]
            plain["times_slower_than_dual_path"] = plain["seconds_median"] / ours["seconds_median"]
            plain["times_memory_of_dual_path"] = plain["above_model_mib"] / max(ours["above_model_mib"], 1e-9)
    return figures


def describe(setup: Setup, repeats: int, figures: dict[str, Any]) -> str:
    lines = [
        f"{setup.model}, image {setup.image_size}, batch {setup.batch_size}, {setup.device}, {setup.threads} threads, "
        f"torch {torch.__version__}, {repeats} repeats",
        f"{'':10}{'pass':12}{'median s':>10}{'min':>9}{'max':>9}{'peak MiB':>10}{'+ model':>9}{'rel. diff':>11}"
        f"{'time x':>8}{'memory x':>10}",
    ]
    for dtype, variants in figures.items():
        for variant, one in variants.items():
            lines.append(
                f"{dtype:10}{variant:12}{one['seconds_median']:10.3f}{one['seconds_min']:9.3f}{one['seconds_max']:9.3f}"
                f"{one['peak_mib']:10.0f}{one['above_model_mib']:9.0f}{one['difference_from_plain_float32']:11.1e}"
                f"{one.get('times_slower_than_dual_path', 1):8.2f}{one.get('times_memory_of_dual_path', 1):10.2f}"
            )
    lines.append(
        "+ model: peak minus what the process held once the model was loaded. time x, memory x: over dual_path."
    )
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-L-14-336-quickgelu", help="open_clip name, or a .json config file")
    parser.add_argument("--image-size", type=int, default=518, help="side of the image in pixels (default 518)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--dpam-start", type=int, default=6, help="first block with a second path (default 6)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--baselines", nargs="+", choices=READINGS, default=list(READINGS), help="plain transcriptions")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each pass (default 3)")
    parser.add_argument("--output", type=Path, help="write the figures to this new JSON file")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.batch_size < 1 or options.threads < 1:
        parser.error("--repeats, --batch-size and --threads must be at least 1.")
    if options.output and options.output.exists():
        parser.error(f"{options.output} exists; give another name.")
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here.")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    setup = Setup(
        options.model,
        options.image_size,
        options.batch_size,
        options.dpam_start,
        options.device,
        options.threads,
    )
    figures = measure(setup, options.dtype, options.baselines, options.repeats)
    print(describe(setup, options.repeats, figures))
    if options.output:
        record = {
            "setup": {**setup.__dict__, "repeats": options.repeats},
            "torch": torch.__version__,
            "processor": platform.machine(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "figures": figures,
        }
        write_record(options.output, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
