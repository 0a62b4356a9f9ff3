# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Compile an exported .pt2 with torch_tensorrt, compare it with the CPU, and time it against PyTorch on the same GPU.

NEVER RUN so far: there was no GPU when it was written. Needs a GPU and a torch_tensorrt that fits the installed torch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_anomalyclip.export import read_description
from monai_anomalyclip.export.agreement import check_batches

EXAMPLES = """examples:
  monai-anomalyclip export --bundle bundles/anomalyclip -o anomalyclip.pt2
  python benchmarks/compile_tensorrt.py anomalyclip.pt2 --output anomalyclip_trt.pt2
"""


def seconds(run: Callable[[], Any], repeats: int) -> list[float]:
    """Of each run, after two for warming up."""
    taken = []
    for number in range(repeats + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number >= 2:
            taken.append(time.perf_counter() - start)
    return taken


def differences(compiled: Callable[[Tensor], Any], exact: Callable[[Tensor], Any], size: int) -> tuple[float, float]:
    """Largest absolute difference of a map's pixel and of a score from the CPU."""
    off_map, off_score = 0.0, 0.0
    for batch in check_batches(size):
        anomaly_map, score = compiled(batch.cuda())
        expected_map, expected_score = exact(batch)
        off_map = max(off_map, float((anomaly_map.cpu() - expected_map).abs().max()))
        off_score = max(off_score, float((score.cpu() - expected_score).abs().max()))
    return off_map, off_score


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help=".pt2 file of monai-anomalyclip export")
    parser.add_argument("--batch-size", type=int, default=8, help="timed batch, and the largest the engine takes")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--tf32", action="store_true", help="let TensorRT round products to TF32")
    parser.add_argument("--output", type=Path, help="write the compiled program to this new .pt2 file")
    options = parser.parse_args(arguments)
    if options.batch_size < 3 or options.repeats < 1:
        parser.error("--batch-size must be at least 3, the largest batch of the check, and --repeats at least 1.")
    if not options.model.is_file():
        parser.error(f"there is no {options.model}; monai-anomalyclip export makes it.")
    if options.output and options.output.exists():
        parser.error(f"{options.output} exists; give another name.")
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here, and TensorRT needs one.")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    import torch_tensorrt
    from torch.export.passes import move_to_device_pass

    size = read_description(options.model)["image_size"]
    exact = torch.export.load(options.model).module()
    program = move_to_device_pass(torch.export.load(options.model), "cuda")
    shape = (3, size, size)
    batch = torch_tensorrt.Input(
        min_shape=(1, *shape),
        opt_shape=(options.batch_size, *shape),
        max_shape=(options.batch_size, *shape),
        dtype=torch.float32,
    )
    with torch.inference_mode():
        compiled = torch_tensorrt.dynamo.compile(program, inputs=[batch], disable_tf32=not options.tf32)
        off_map, off_score = differences(compiled, exact, size)
        image = torch.randn(options.batch_size, *shape, device="cuda")
        plain = program.module()
        ours, theirs = (seconds(lambda run=run: run(image), options.repeats) for run in (compiled, plain))
    print(f"difference from the CPU: map {off_map:.1e}, score {off_score:.1e} (largest)")
    ratios = sorted(other / own for own, other in zip(ours, theirs, strict=True))
    print(
        f"TensorRT {options.batch_size / statistics.median(ours):.1f} images/s, "
        f"{statistics.median(ratios):.2f} times faster than PyTorch ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    if options.output:
        torch_tensorrt.save(compiled, str(options.output), inputs=[image])
    return 0


if __name__ == "__main__":
    sys.exit(main())
