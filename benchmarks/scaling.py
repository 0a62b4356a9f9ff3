# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow: with the image's size, the batch, the slices of a volume, and the images tuned on.

A thin CLIP with random weights, so that the large end fits a CPU; growth, not speed, is what is looked at (``--model``
takes another). Tuning runs on simulated features up to ``--tuned`` images; the greatest number is extrapolated by a
straight line through the measured ones. "Growth" is the exponent between two points: 1 is linear.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Timing, machine, peak_mib, random_network, write_record
from monai.data import DataLoader, Dataset

from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP

THIN = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "layers": 6, "width": 192, "head_width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
    "quick_gelu": True,
}
SIZES = [224, 322, 518, 742, 1036]
BATCHES = [1, 2, 4, 8, 16]
SLICES = [1, 10, 100, 1000]
TUNED = [100, 400]
EXTRAPOLATED = 10_000
EXAMPLES = """examples:
  python benchmarks/scaling.py                                         a thin CLIP: some minutes on a CPU
  python benchmarks/scaling.py --plot docs/images/scaling.png --json scaling.json
  python benchmarks/scaling.py --device cuda --model ViT-L-14-336-quickgelu
"""


def encode(network: AnomalyCLIP, size: int, batch: int) -> Callable[[], Any]:
    """One prediction for a batch of noise."""
    image = torch.randn(batch, 3, size, size, device=network.clip.logit_scale.device)

    def run() -> None:
        with torch.inference_mode():
            network.predict(image)

    return run


def volume(network: AnomalyCLIP, size: int, slices: int) -> Callable[[], Any]:
    """The inferer over a volume of noise, slice by slice."""
    voxels = torch.rand(1, 1, 96, 96, slices)
    inferer = AnomalySliceInferer(size, slice_axis=2)
    return lambda: inferer(voxels, network)


def tuning(network: AnomalyCLIP, size: int, images: int) -> Callable[[], Any]:
    """One epoch over as many simulated items; at most 64 of them are distinct, for speed does not depend on them."""
    side, width = size // network.patch_size, int(network.clip.visual.output_dim)
    distinct = [
        {
            "global_features": torch.randn(width),
            "patch_features": torch.randn(1, 1 + side * side, width),
            "label": (torch.rand(1, size, size) > 0.9).float(),
            "image_label": number % 2,
            "has_label": 1,
        }
        for number in range(min(images, 64))
    ]
    device = network.clip.logit_scale.device
    loader = DataLoader(Dataset([distinct[n % len(distinct)] for n in range(images)]), batch_size=8, num_workers=0)
    prepare, loss = PrepareAnomalyBatch("logits"), GlocalLoss()
    optimizer = torch.optim.Adam(network.prompts.parameters(), lr=1e-3)

    def run() -> None:
        for batch in loader:
            inputs, targets, _, extra = prepare(batch, device)
            optimizer.zero_grad()
            loss(network(inputs, **extra), targets).backward()
            optimizer.step()

    return run


def measure(calls: dict[int, Callable[[], Any]], device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds, peak memory and growth of calls by the number that grows."""
    found: dict[str, Any] = {}
    for number, call in calls.items():
        memory = peak_mib(call, device)  # the warm-up, too
        timing = Timing()
        for _ in range(repeats):
            timing.measure(call, device)
        found[str(number)] = {**timing.as_dict(), "peak_mib": memory}
    numbers = list(calls)
    growth = []
    for low, high in itertools.pairwise(numbers):
        ratio = found[str(high)]["seconds_min"] / found[str(low)]["seconds_min"]
        growth.append(math.log(ratio) / math.log(high / low))
    return {"points": found, "growth": growth}


def extrapolated(points: dict[str, Any], number: int) -> float:
    """Seconds for a number of images, by the straight line through the measured points."""
    images = [float(each) for each in points]
    slope, start = np.polyfit(images, [point["seconds_min"] for point in points.values()], 1)
    return float(slope * number + start)


def cache_mib(model: AnomalyCLIP, size: int, images: int) -> float:
    """Memory of as many cached items, features in float32 and mask."""
    side, width = size // model.patch_size, int(model.clip.visual.output_dim)
    return 4 * images * ((1 + side * side + 1) * width + size * size) / 2**20


def plot(figures: dict[str, Any], path: Path) -> None:
    """Time and memory against each of the numbers, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for panel, (what, one) in zip(panels.flat, figures.items(), strict=True):
        numbers = [int(number) for number in one["points"]]
        seconds = [point["seconds_min"] for point in one["points"].values()]
        panel.loglog(numbers, seconds, "o-", color="tab:blue")
        if "extrapolated_s" in one:
            panel.loglog([numbers[-1], EXTRAPOLATED], [seconds[-1], one["extrapolated_s"]], "o--", color="tab:blue")
        if "extrapolated_s" in one:
            numbers, seconds = [*numbers, EXTRAPOLATED], [*seconds, one["extrapolated_s"]]
        panel.set_xticks(numbers, [str(number) for number in numbers])
        panel.set_yticks(seconds, [f"{value:.2g}" for value in seconds])
        panel.minorticks_off()
        panel.set(xlabel=what, ylabel="seconds")
        panel.yaxis.label.set_color("tab:blue")
        panel.grid(alpha=0.3)
        memory = panel.twinx()
        peaks = [point["peak_mib"] for point in one["points"].values()]
        memory.plot(numbers[: len(peaks)], peaks, "s:", color="tab:orange")
        memory.set_ylabel("peak memory above the model, MiB", color="tab:orange")
        memory.set_ylim(0, 1.1 * max(peaks) + 1)
    figure.suptitle("Growth of time and memory (random weights)")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def describe(figures: dict[str, Any]) -> str:
    lines = []
    for what, one in figures.items():
        lines.append(f"{what:24}{'seconds':>10}{'from - to':>20}{'MiB':>8}{'growth':>9}")
        for (number, point), growth in zip(one["points"].items(), [None, *one["growth"]], strict=True):
            spread = f"{point['seconds_min']:.3f} - {point['seconds_max']:.3f}"
            shown = "" if growth is None else f"{growth:.2f}"
            lines.append(f"{number:>24}{point['seconds_median']:10.3f}{spread:>20}{point['peak_mib']:8.0f}{shown:>9}")
        if "extrapolated_s" in one:
            lines.append(
                f"{EXTRAPOLATED:>24}{one['extrapolated_s']:10.1f}  an epoch, extrapolated; the cache would take "
                f"{one['cache_mib']:.0f} MiB"
            )
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="open_clip name, or a .json config file (default: a thin one)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="image sides, multiples of the patch")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--slices", type=int, nargs="+", default=SLICES)
    parser.add_argument("--tuned", type=int, nargs="+", default=TUNED, help="images tuned on, simulated")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    parser.add_argument("--plot", type=Path, help="write the plot to this PNG file, replacing it")
    parser.add_argument("--json", type=Path, help="write the figures to this new file")
    options = parser.parse_args(arguments)
    for name in ("sizes", "batches", "slices", "tuned"):
        numbers = getattr(options, name)
        if len(numbers) < 2 or numbers != sorted(set(numbers)) or numbers[0] < 1:
            parser.error(f"--{name} takes two or more numbers, ascending, from 1.")
    if options.repeats < 1:
        parser.error("--repeats must be at least 1.")
    if options.json and options.json.exists():
        parser.error(f"{options.json} exists; give another name.")
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = parse_arguments(arguments)
    device, size = torch.device(options.device), options.sizes[0]
    with tempfile.TemporaryDirectory() as folder:
        thin = Path(folder, "thin.json")
        thin.write_text(json.dumps(THIN))
        network = random_network(options.model or str(thin), size, options.device)
    figures = {}
    for what, numbers, make in (
        ("image size", options.sizes, lambda number: encode(network, number, 1)),
        ("batch", options.batches, lambda number: encode(network, size, number)),
        ("slices of a volume", options.slices, lambda number: volume(network, size, number)),
        ("images tuned on", options.tuned, lambda number: tuning(network, size, number)),
    ):
        figures[what] = measure({number: make(number) for number in numbers}, device, options.repeats)
    tuned = figures["images tuned on"]
    tuned["extrapolated_s"] = extrapolated(tuned["points"], EXTRAPOLATED)
    tuned["cache_mib"] = cache_mib(network, size, EXTRAPOLATED)
    print(describe(figures))
    if options.plot:
        plot(figures, options.plot)
    if options.json:
        setup = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        write_record(options.json, {"setup": setup, "machine": machine(device), "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
