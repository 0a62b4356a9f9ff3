# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The vision pass on a CPU against its own matrix products alone, in one run, with random weights in float32.

The products' sizes follow from the architecture: what the pass would take if norms, softmax, activations and memory
cost nothing. Pass and products take turns; the fastest of each counts. Peak memory is that of a process of its own.

    python benchmarks/cpu_ceiling.py --json ceiling.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from forward import OURS, Setup, build, make_pass, peak_memory
from measuring import machine, write_record
from open_clip.transformer import VisionTransformer

from monai_anomalyclip.networks.devices import linear

GOAL = 0.8
Product = tuple[int, int, int]  # rows, inputs, outputs


def products(visual: VisionTransformer, image_size: int, dpam_start: int) -> Counter[Product]:
    """Sizes of all products of one image, and how often each occurs."""
    patch, width = visual.conv1.kernel_size[0], visual.conv1.out_channels
    blocks = visual.transformer.resblocks
    hidden, heads, depth = blocks[0].mlp.c_fc.out_features, blocks[0].attn.num_heads, len(blocks)
    tokens = 1 + (image_size // patch) ** 2
    whole = depth - 1  # of the last block's original path only the class token is wanted
    local = depth - dpam_start + 1
    return Counter(
        {
            (tokens - 1, 3 * patch**2, width): 1,
            (tokens, width, 3 * width): depth,
            (tokens, width, width): whole + local,
            (tokens, width, hidden): whole,
            (tokens, hidden, width): whole,
            (tokens, width // heads, tokens): heads * (whole + local),
            (tokens, tokens, width // heads): heads * (whole + local),
            (tokens, width, int(visual.proj.shape[1])): 1,
        }
    )


def operations(sizes: Counter[Product]) -> float:
    """Multiplications and additions."""
    return sum(2.0 * rows * inputs * outputs * count for (rows, inputs, outputs), count in sizes.items())


def seconds(call: Callable[[], Any], calls: int = 1) -> float:
    """Of one of several calls."""
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit status tells nothing of the goal, which other programs can spoil."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-L-14-336-quickgelu", help="open_clip name, or a .json config file")
    parser.add_argument("--image-size", type=int, default=518, help="side of the image in pixels (default: 518)")
    parser.add_argument("--dpam-start", type=int, default=6, help="first block with a second path (default: 6)")
    parser.add_argument("--device", choices=("cpu",), default="cpu", help="no other is measured here")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts (default: 3)")
    parser.add_argument("--json", type=Path, help="file of the record")
    given = parser.parse_args(arguments)
    setup = Setup(given.model, given.image_size, 1, given.dpam_start, "cpu", given.threads)
    clip, image = build(setup)
    run = make_pass(OURS, clip, image, setup, "float32")
    sizes = products(clip.visual, given.image_size, given.dpam_start)
    with torch.inference_mode():
        operands = {size: (torch.randn(size[0], size[1]), torch.randn(size[2], size[1])) for size in sizes}
        run()
        passes: list[float] = []
        best = dict.fromkeys(sizes, float("inf"))
        for _ in range(given.repeats):
            passes.append(seconds(run))
            for size, (left, right) in operands.items():
                found = seconds(lambda left=left, right=right: linear(left, right, None), 5)  # type: ignore[misc]
                best[size] = min(best[size], found)
    ceiling = sum(best[size] * count for size, count in sizes.items())
    del clip, image, run, operands
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        memory = pool.submit(peak_memory, OURS, setup, "float32").result()
    record = {
        "machine": machine(torch.device("cpu")),
        "setup": setup.__dict__,
        "TFLOP": operations(sizes) / 1e12,
        "pass s": passes,
        "products s": ceiling,
        "products GFLOP/s": {
            "x".join(map(str, size)): operations(Counter({size: 1})) / best[size] / 1e9 for size in sizes
        },
        "share of the ceiling": ceiling / min(passes),
        "goal": GOAL,
        **memory,
    }
    print(
        f"{given.model} at {given.image_size}: {min(passes):.2f} s, its {record['TFLOP']:.3f} TFLOP of products alone "
        f"{ceiling:.2f} s: {record['share of the ceiling']:.0%} (goal {GOAL:.0%}); {memory['above_model_mib']:.0f} MiB "
        "above the model."
    )
    if given.json:
        write_record(given.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
