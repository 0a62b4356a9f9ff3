# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How a reference of k phantom normals separates phantoms with a defect from those without, family by family.

Phantoms are drawn by a program, so the figures say nothing about real images. They say whether the method does what it
should: in each family more normals help. Mean over several draws; image and pixel AUROC and AP.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import machine, write_record
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from tqdm import tqdm

from monai_anomalyclip.demo.phantoms import FAMILIES, sample_phantom
from monai_anomalyclip.reference import PatchEncoder, image_score
from monai_anomalyclip.reference.encoder_choice import make_encoder
from monai_anomalyclip.reference.mutual_scoring import nearest_patches

FIRST_TEST = 100_000  # seeds from here on are tested, those below are normals


def features(encoder: PatchEncoder, family: str, anomalous: bool, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """(P, C) of a phantom, and (P,) the share of each patch that its mask covers."""
    phantom = sample_phantom(family, anomalous, seed, size)
    image = torch.from_numpy(phantom.image).permute(2, 0, 1)[None].float() / 255
    mask = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(phantom.mask)[None].float(), encoder.grid)
    return encoder(image)[0], mask.flatten()


def measure(encoder: PatchEncoder, family: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures of a family, by k."""
    tests = [
        (label, *features(encoder, family, bool(label), FIRST_TEST + seed, options.size))
        for label in (0, 1)
        for seed in range(options.tests)
    ]
    found: dict[int, list[dict[str, float]]] = {k: [] for k in options.k}
    for draw in range(options.draws):
        seeds = range(1000 * draw, 1000 * draw + max(options.k))
        normals = [features(encoder, family, False, seed, options.size)[0] for seed in seeds]
        nearest: list[list[Tensor]] = [[nearest_patches(one, normal) for normal in normals] for _, one, _ in tests]
        for k in options.k:
            maps = [torch.stack(rows[:k]).amin(0) for rows in nearest]
            labels = [label for label, _, _ in tests]
            scores = [float(image_score(one)) for one in maps]
            pixels = torch.cat(maps).numpy(), torch.cat([mask >= 0.5 for _, _, mask in tests]).numpy()
            found[k].append(
                {
                    "image_auroc": float(roc_auc_score(labels, scores)),
                    "image_ap": float(average_precision_score(labels, scores)),
                    "pixel_auroc": float(roc_auc_score(pixels[1], pixels[0])),
                    "pixel_ap": float(average_precision_score(pixels[1], pixels[0])),
                }
            )
    return {
        str(k): {name: statistics.fmean(one[name] for one in ones) for name in ones[0]} for k, ones in found.items()
    }


def describe(record: dict[str, Any]) -> str:
    """A Markdown table."""
    ks = [str(k) for k in record["k"]]
    lines = [f"| family | {' | '.join(f'k = {k}' for k in ks)} | rises |", "|---" * (2 + len(ks)) + "|"]
    for family, found in record["families"].items():
        cells = [f"{found[k]['image_auroc']:.3f} / {found[k]['pixel_ap']:.3f}" for k in ks]
        lines.append(f"| {family} | {' | '.join(cells)} | {'yes' if rises(found, ks) else 'no'} |")
    return "\n".join(["Image AUROC / pixel AP.", "", *lines])


def rises(found: dict[str, dict[str, float]], ks: Sequence[str]) -> bool:
    """Whether the most normals are better than the fewest in image AUROC, or equal at 1, and in pixel AP."""
    first, last = found[ks[0]], found[ks[-1]]
    images = last["image_auroc"] > first["image_auroc"] or last["image_auroc"] == 1
    return images and last["pixel_ap"] > first["pixel_ap"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="default: all")
    parser.add_argument("--k", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 16, 32])
    parser.add_argument("--draws", type=int, default=2, help="of the normals (default 2)")
    parser.add_argument("--tests", type=int, default=24, help="phantoms of each label (default 24)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side (default 224)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this new file")
    options = parser.parse_args(arguments)
    encoder = make_encoder()
    families = {family: measure(encoder, family, options) for family in tqdm(options.families, leave=False)}
    record: dict[str, Any] = {
        "k": options.k, "draws": options.draws, "tests": options.tests, "size": options.size, "families": families,
        "machine": machine(torch.device("cpu")),
    }  # fmt: skip
    print(describe(record))
    if options.json:
        write_record(options.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
