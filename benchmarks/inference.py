# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Images a second of the vision pass, of the machine's ceiling, and against its plain transcription in the same call.

The ceiling is what a product of large matrices reaches in the same precision on the same device. Passes take turns;
the spread is that of the repeats. The weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from forward import OURS, Setup, build, make_pass
from measuring import Timing, machine, peak_mib, timings, write_record
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from monai_anomalyclip.networks import resolve_precision
from monai_anomalyclip.networks.devices import linear

PLAIN = "published"
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"model": "ViT-B-16-quickgelu", "image_size": 224, "batch_sizes": [1, 8], "repeats": 3},
    "cuda": {"model": "ViT-L-14-336-quickgelu", "image_size": 518, "batch_sizes": [1, 8, 32], "repeats": 10},
}
EXAMPLES = """examples:
  python benchmarks/inference.py                                ViT-B/16 at 224, batch 1 and 8: a few minutes on a CPU
  python benchmarks/inference.py --device cuda                  ViT-L/14@336 at 518, batch 1, 8 and 32
  python benchmarks/inference.py --compile --batch-sizes 8      what torch.compile costs and gives, too
"""


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# The kernel that torch's counter does not know.
CPU_KERNELS: dict[Any, Any] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}


def ceiling(device: torch.device, dtype: torch.dtype, size: int, repeats: int) -> float:
    """TFLOP/s of a product of square matrices, the best of the repeats; by the library that frozen layers use."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = Timing()
    with torch.inference_mode():
        linear(left, right, None)
        for _ in range(repeats + 2):
            timing.measure(lambda: linear(left, right, None), device)
    return 2 * size**3 / min(timing.wall) / 1e12


def measure(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Figures of one precision for all batch sizes."""
    device = torch.device(options.device)
    size = 4096 if device.type == "cuda" else 1536
    dtype: torch.dtype = getattr(torch, precision)
    figures: dict[str, Any] = {"ceiling_tflops": ceiling(device, dtype, size, options.repeats), "batches": {}}
    for batch_size in options.batch_sizes:
        setup = Setup(
            options.model, options.image_size, batch_size, options.dpam_start, options.device, options.threads
        )
        clip, image = build(setup)
        passes = {variant: make_pass(variant, clip, image, setup, precision) for variant in (OURS, PLAIN)}
        counter = FlopCounterMode(display=False, custom_mapping=CPU_KERNELS)
        with torch.backends.mkldnn.flags(enabled=False), counter:  # without oneDNN's operator, which it cannot count
            passes[OURS]()
        passes[PLAIN]()
        compiled_s = None
        if options.compile:
            compiled = torch.compile(passes[OURS])
            begun = time.perf_counter()
            compiled()
            compiled_s = time.perf_counter() - begun
            passes["compiled"] = compiled
        memory = {variant: peak_mib(one, device) for variant, one in passes.items()}
        found = timings(passes, options.repeats, device)
        teraflops = counter.get_total_flops() / found[OURS].median / 1e12
        one: dict[str, Any] = {
            variant: {
                **timing.as_dict(),
                "images_per_s": batch_size / timing.median,
                "images_per_s_spread": [batch_size / max(timing.wall), batch_size / min(timing.wall)],
                "above_model_mib": memory[variant],
            }
            for variant, timing in found.items()
        }
        one["tflop_per_image"] = counter.get_total_flops() / batch_size / 1e12
        one["tflops"] = teraflops
        one["of_ceiling"] = teraflops / figures["ceiling_tflops"]
        one["plain_over_ours"] = found[PLAIN].over(found[OURS])
        if compiled_s is not None:
            gained = (found[OURS].median - found["compiled"].median) / batch_size
            one["compiling_s"] = compiled_s
            one["compile_pays_after_images"] = compiled_s / gained if gained > 0 else None
        figures["batches"][str(batch_size)] = one
    return figures


def describe(options: argparse.Namespace, figures: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"{options.model}, image {options.image_size}, {options.device}, {options.threads} threads, torch "
        f"{torch.__version__}, {options.repeats} repeats; automatic precision here: "
        f"{resolve_precision('auto', options.device)}",
        f"{'':10}{'batch':>6}{'images/s':>10}{'from - to':>18}{'of ceiling':>12}{'MiB':>8}"
        f"{'plain x':>9}{'from - to':>16}{'CPU x':>7}",
    ]
    for precision, one in figures.items():
        for batch, row in one["batches"].items():
            ours, ratio = row[OURS], row["plain_over_ours"]
            spread = "{:.2f} - {:.2f}".format(*ours["images_per_s_spread"])
            between = f"{ratio['ratio_least']:.2f} - {ratio['ratio_most']:.2f}"
            lines.append(
                f"{precision:10}{batch:>6}{ours['images_per_s']:10.2f}{spread:>18}{row['of_ceiling']:12.0%}"
                f"{ours['above_model_mib']:8.0f}{ratio['ratio']:9.2f}{between:>16}{ratio['cpu_ratio']:7.2f}"
            )
            if "compiling_s" in row:
                pays = row["compile_pays_after_images"]
                when = "does not pay" if pays is None else f"pays after {pays:.0f} images"
                lines.append(
                    f"{'':16}torch.compile: {row['compiling_s']:.0f} s, then {row['compiled']['images_per_s']:.2f} "
                    f"images/s: {when}"
                )
        lines.append(f"{precision:10}ceiling: {one['ceiling_tflops']:.3f} TFLOP/s")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="open_clip name, or a .json config file")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--dpam-start", type=int, default=6, help="first block with a second path (default 6)")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("float32", "bfloat16"),
        help="default: float32, and bfloat16 where the device has units for it",
    )
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the figures to this new file")
    options = parser.parse_args(arguments)
    kind = torch.device(options.device).type
    for name, value in DEFAULTS["cuda" if kind == "cuda" else "cpu"].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.precision is None:
        units = kind == "cuda" or resolve_precision("auto", options.device) == "bfloat16"
        options.precision = ["float32", "bfloat16"] if units else ["float32"]
    if min([*options.batch_sizes, options.repeats, options.threads]) < 1:
        parser.error("--batch-sizes, --repeats and --threads must be at least 1.")
    if options.json and options.json.exists():
        parser.error(f"{options.json} exists; give another name.")
    if kind == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    figures = {precision: measure(options, precision) for precision in options.precision}
    print(describe(options, figures))
    if options.json:
        setup = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        write_record(
            options.json, {"setup": setup, "machine": machine(torch.device(options.device)), "figures": figures}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
