# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Time per image of PyTorch (float32, bfloat16), ONNX, INT8, float16, OpenVINO in one run, and what each costs.

The ways take turns, so that a busy machine slows all of them. The weights are random: speed does not depend on them,
and differences from float32 say nothing of a trained model. Exports are made and run on the CPU, by
onnxruntime or OpenVINO; float16 is for GPUs, and here for its agreement alone: on a CPU it is no faster than float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from measuring import write_record
from torch import Tensor

from monai_anomalyclip.export import ONNXNetwork, export_model
from monai_anomalyclip.export.agreement import check_batches, measure_agreement, predict_exactly
from monai_anomalyclip.networks import AnomalyCLIP

WAYS = ("float32", "bfloat16", "onnx", "int8", "float16", "openvino")
EXPORTED = WAYS[2:]
BASELINE = "float32"
# Model -> image size, first block of the DPAM path; the tapped block is the last one.
PRESETS = {"ViT-B-16-quickgelu": (336, 3), "ViT-L-14-336-quickgelu": (518, 6)}
EXAMPLES = """examples:
  python benchmarks/export.py                                  ViT-B/16 at 336, minutes on two cores
  python benchmarks/export.py --model ViT-L-14-336-quickgelu   full size: 518
  python benchmarks/export.py --device cuda --ways float32 bfloat16
"""

Run = Callable[[Tensor], tuple[Tensor, Tensor]]


def build(options: argparse.Namespace) -> AnomalyCLIP:
    """The network on random weights."""
    torch.manual_seed(0)
    path = Path(options.model)
    name: str | dict[str, Any] = json.loads(path.read_text()) if path.suffix == ".json" else options.model
    config = open_clip.get_model_config(name) if isinstance(name, str) else name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        return AnomalyCLIP(
            name,
            None,
            image_size=options.image_size,
            feature_layers=[config["vision_cfg"]["layers"]],
            dpam_start=options.dpam_start,
            deep_prompt_depth=min(9, config["text_cfg"]["layers"]),
        ).eval()


def torch_run(network: AnomalyCLIP, device: torch.device, bfloat16: bool) -> Run:
    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            result = network.predict(image.to(device))
        # Copying to the CPU waits for the device.
        return result["anomaly_map"].float().cpu(), result["anomaly_score"].float().cpu()

    return run


def onnx_run(path: Path, threads: int, way: str) -> Run:
    network = ONNXNetwork(path, threads=threads, runtime="openvino" if way == "openvino" else "onnxruntime")

    def run(image: Tensor) -> tuple[Tensor, Tensor]:
        result = network.predict(image)
        return result["anomaly_map"], result["anomaly_score"]

    return run


def prepare(options: argparse.Namespace, network: AnomalyCLIP, folder: Path) -> tuple[dict[str, Run], dict[str, Any]]:
    """A function per way, and of exported models the size of the file and the seconds the export took."""
    device = torch.device(options.device)
    runs: dict[str, Run] = {}
    facts: dict[str, Any] = {way: {} for way in options.ways}
    for way in [way for way in options.ways if way in EXPORTED]:
        path, start = folder / f"{way}.onnx", time.perf_counter()
        export_model(network, path, int8=way == "int8", float16=way == "float16", opset=options.opset)
        facts[way] = {"export_seconds": time.perf_counter() - start, "file_mib": path.stat().st_size / 2**20}
        runs[way] = onnx_run(path, options.threads, way)
    network.to(device)
    for way in [way for way in options.ways if way not in runs]:
        runs[way] = torch_run(network, device, way == "bfloat16")
    return {way: runs[way] for way in options.ways}, facts


def measure_times(runs: dict[str, Run], image: Tensor, repeats: int) -> dict[str, list[float]]:
    """Seconds per image of each way; the ways take turns and the order is reversed each time."""
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for repeat in range(repeats):
        for way in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            start = time.perf_counter()
            runs[way](image)
            seconds[way].append((time.perf_counter() - start) / len(image))
    return seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run, as they are written to ``--output``."""
    torch.set_num_threads(options.threads)
    network = build(options)
    image = torch.randn(options.batch_size, 3, options.image_size, options.image_size)
    with tempfile.TemporaryDirectory() as folder:
        runs, figures = prepare(options, network, Path(folder))
        for run in runs.values():
            run(image)  # the warm-up
        seconds = measure_times(runs, image, options.repeats)
        batches = check_batches(options.image_size)
        computed = {way: [run(batch) for batch in batches] for way, run in runs.items()}
        expected = predict_exactly(network.cpu(), batches)
        for way in runs:
            agreement = measure_agreement(expected, computed[way])
            figures[way] |= {
                "seconds_per_image_median": statistics.median(seconds[way]),
                "seconds_per_image_min": min(seconds[way]),
                "seconds_per_image_max": max(seconds[way]),
                "difference_from_float32": agreement.as_dict(),
            }
            if BASELINE in seconds:
                ratios = [base / own for base, own in zip(seconds[BASELINE], seconds[way], strict=True)]
                figures[way] |= {
                    "times_faster": statistics.median(ratios),
                    "times_faster_least": min(ratios),
                    "times_faster_most": max(ratios),
                }
    return figures


def describe(options: argparse.Namespace, figures: dict[str, Any]) -> str:
    lines = [
        f"{options.model}, image {options.image_size}, batch {options.batch_size}, {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}, {options.repeats} repeats",
        f"{'way':10}{'s / image':>10}{'min':>9}{'max':>9}{'x float32':>11}{'least':>8}{'most':>8}"
        f"{'file MiB':>10}{'map mean':>10}{'map max':>9}{'score':>9}",
    ]
    for way, one in figures.items():
        off = one["difference_from_float32"]
        lines.append(
            f"{way:10}{one['seconds_per_image_median']:10.3f}{one['seconds_per_image_min']:9.3f}"
            f"{one['seconds_per_image_max']:9.3f}{one.get('times_faster', float('nan')):11.2f}"
            f"{one.get('times_faster_least', float('nan')):8.2f}{one.get('times_faster_most', float('nan')):8.2f}"
            f"{one.get('file_mib', float('nan')):10.0f}{off['map_mean']:10.1e}{off['map_max']:9.1e}"
            f"{off['score_max']:9.1e}"
        )
    lines.append("x float32: how many times faster than PyTorch in float32, of pairs timed one after the other.")
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="ViT-B-16-quickgelu", help=f"{', '.join(PRESETS)}, or a .json config file (with sizes)"
    )
    parser.add_argument("--image-size", type=int, help="side of the image in pixels (default: 336 or 518)")
    parser.add_argument("--dpam-start", type=int, help="first block with a second path (default: 3 or 6)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of PyTorch: cpu, cuda, ...; onnxruntime stays on the CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--opset", type=int, default=18)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way (default 5)")
    parser.add_argument("--output", type=Path, help="write the figures to this new JSON file")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.batch_size < 1 or options.threads < 1:
        parser.error("--repeats, --batch-size and --threads must be at least 1.")
    size, start = PRESETS.get(options.model, (options.image_size, options.dpam_start))
    options.image_size, options.dpam_start = options.image_size or size, options.dpam_start or start
    if not options.image_size or not options.dpam_start:
        parser.error(f"--model {options.model} needs --image-size and --dpam-start.")
    if options.output and options.output.exists():
        parser.error(f"{options.output} exists; give another name.")
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here.")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    figures = measure(options)
    print(describe(options, figures))
    if options.output:
        setup = {key: value for key, value in vars(options).items() if key != "output"}
        record = {
            "setup": setup,
            "torch": torch.__version__,
            **{name: version(name) for name in ("onnxruntime", "openvino") if find_spec(name)},
            "processor": platform.machine(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "figures": figures,
        }
        write_record(options.output, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
