# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How well normal images of one's own separate other normal images from abnormal ones, on any two folders.

Normals are drawn several times; of each draw the first k are the reference, for each k, and all draws are tested on
the abnormal images and on those normals that are in none of the draw's references. Each image is encoded once, and its
distances to the drawn normals serve all draws and all k. Beside the figures stand those of trivial cues: where the
mean gray value alone tells normal from abnormal, the set says little.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, write_record
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from tqdm import tqdm

from monai_anomalyclip.data import read_mask
from monai_anomalyclip.data.frames import read_frame
from monai_anomalyclip.data.input_files import FRAME_SUFFIXES
from monai_anomalyclip.metrics import AUPROMetric, PixelAUROCMetric
from monai_anomalyclip.reference import ConformalScores, MemoryBank, PatchEncoder, image_score, join_stages
from monai_anomalyclip.reference.cohort import MOST_PARTNERS
from monai_anomalyclip.reference.encoder_choice import make_encoder
from monai_anomalyclip.reference.mutual_scoring import interval_average, nearest_patches
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map

EXAMPLES = """example:
  python benchmarks/reference_real.py --normal DIR/normal --abnormal DIR/defect --masks DIR/masks --json table.json

A mask has the name of its abnormal image, whatever its suffix, or that with _mask, _label, _gt or _seg behind it.
"""
RATES = (0.05, 0.1, 0.2)
RAW_STAGES = 2  # the finer stages, as PatchCore takes them, for what normalising is worth
MASK_ENDINGS = ("", "_mask", "_label", "_gt", "_seg", "_GT")
MAP_SIDE = 256  # pixels to which maps and masks are reduced


@dataclass(frozen=True)
class Draw:
    """Which of the folder's normals are the reference, in order: the first k for each k."""

    normals: tuple[int, ...]

    def first(self, k: int) -> tuple[int, ...]:
        return self.normals[:k]


@dataclass
class Picture:
    """What is kept of an image: its features, both kinds, and what could give it away."""

    normalised: Tensor
    raw: Tensor
    gray: float
    pixels: int


def pictures_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FRAME_SUFFIXES)
    if not found:
        raise ValueError(f"There are no pictures in the folder {folder.name!r}.")
    return found


def encode(paths: Iterable[Path], encoder: PatchEncoder, what: str) -> list[Picture]:
    """Features of pictures: of all stages, each of unit length, and of the first two as they are."""
    encoded = []
    for path in tqdm(list(paths), desc=f"Encoding {what}", leave=False):
        image = torch.from_numpy(read_frame(path)).permute(2, 0, 1).float()[None] / 255
        stages = encoder.feature_maps(image)
        normalised = join_stages(stages, encoder.grid)[0].half()
        raw = join_stages(stages[:RAW_STAGES], encoder.grid, normalise=False)[0].half()
        encoded.append(Picture(normalised, raw, float(image.mean()), image.shape[-1] * image.shape[-2]))
    return encoded


def draw_normals(count: int, largest: int, draws: int, seed: int) -> list[Draw]:
    if count <= largest:
        raise ValueError(f"{count} normal images are too few for references of {largest}: none is left to test on.")
    generator = np.random.default_rng(seed)
    return [Draw(tuple(generator.permutation(count)[:largest].tolist())) for _ in range(draws)]


class Distances:
    """Distances between all images and the normals of all draws, computed once."""

    def __init__(self, normals: Sequence[Tensor], abnormal: Sequence[Tensor], draws: Sequence[Draw]) -> None:
        self.drawn = sorted({index for draw in draws for index in draw.normals})
        self.place = {index: place for place, index in enumerate(self.drawn)}
        whole = torch.stack([normals[index] for index in self.drawn])
        numbers = torch.arange(len(whole))
        self.bank = MemoryBank(whole, whole[0, :0], numbers, numbers[:0])
        self.normals, self.abnormal = normals, abnormal
        rows = tqdm([normals[index] for index in self.drawn], desc="Comparing normals", leave=False)
        # From each drawn normal (first axis) to each other (second), patch by patch.
        self.among = torch.stack([self.bank.nearest_of_each(row.float())[0] for row in rows])
        for place in range(len(self.drawn)):
            self.among[place, place] = torch.inf

    def of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.bank.nearest_of_each(features.float())

    def compared(self, forth: Tensor, back: Tensor, indices: Sequence[int]) -> tuple[float, Tensor, Tensor]:
        """Score and patch distances of an image beside some normals, and the scores of these as if it were one."""
        places = [self.place[index] for index in indices]
        nearest = forth[places].amin(0)
        own = torch.minimum(self.among[places][:, places].amin(1), back[places])
        return float(image_score(nearest)), nearest, image_score(own)


def measure(
    distances: Distances, draws: Sequence[Draw], ks: Sequence[int], masks: Mapping[int, Tensor], grid: int
) -> dict[str, Any]:
    """Figures of all draws and all k."""
    scores: dict[tuple[int, int], list[float]] = defaultdict(list)
    labels: dict[int, list[int]] = defaultdict(list)
    ps: dict[tuple[int, int], list[float | None]] = defaultdict(list)
    pixel_metrics = [(PixelAUROCMetric("histogram"), AUPROMetric("histogram")) for _ in draws] if masks else []
    tests = [(0, index, one) for index, one in enumerate(distances.normals)]
    tests += [(1, index, one) for index, one in enumerate(distances.abnormal)]
    for label, index, features in tqdm(tests, desc="Comparing", leave=False):
        wanted = [number for number, draw in enumerate(draws) if label or index not in draw.normals]
        if not wanted:
            continue
        forth, back = distances.of(features)
        for number in wanted:
            labels[number].append(label)
            for k in ks:
                score, nearest, normals = distances.compared(forth, back, draws[number].first(k))
                scores[number, k].append(score)
                ps[number, k].append(ConformalScores(normals.numpy()).p_value(score))
            if masks and (label == 0 or index in masks):
                mask = masks[index] if label else torch.zeros(1, MAP_SIDE, MAP_SIDE)
                fine = resize_anomaly_map(nearest.reshape(1, 1, grid, grid), (MAP_SIDE, MAP_SIDE))
                for metric in pixel_metrics[number]:
                    metric(y_pred=fine, y=mask[None])  # of the largest k, the last
    numbers = range(len(draws))
    figures: dict[str, Any] = {
        "image_auroc": {str(k): spread(roc_auc_score(labels[n], scores[n, k]) for n in numbers) for k in ks}
    }
    for name, label in (("false_positive_rate", 0), ("sensitivity", 1)):
        figures[name] = {
            str(k): {f"{rate:g}": flagged for rate in RATES if (flagged := flag_rate(ps, labels, k, rate, label))}
            for k in ks
        }
    if masks:
        found = [[metric.aggregate() for metric in both] for both in pixel_metrics]
        for column, name in enumerate(("pixel_auroc", "pixel_aupro")):
            figures[name] = {str(ks[-1]): spread(float(row[column]) for row in found)}
    return figures


def flag_rate(
    ps: Mapping[tuple[int, int], list[float | None]], labels: Mapping[int, list[int]], k: int, rate: float, label: int
) -> dict[str, float] | None:
    """Share of the images of a label that are flagged at a rate; None where k normals allow no such flag."""
    if ConformalScores(np.zeros(k)).may_flag(rate):
        shares = []
        for number, ones in labels.items():
            chosen = [p for p, one in zip(ps[number, k], ones, strict=True) if one == label]
            shares.append(statistics.fmean(p is not None and p <= rate + 1e-9 for p in chosen))
        return spread(shares)
    return None


def spread(values: Iterable[float]) -> dict[str, float]:
    found = [float(value) for value in values]
    return {"mean": statistics.fmean(found), "min": min(found), "max": max(found)}


def cohort_figures(features: Sequence[Tensor], normals: int, scale: float) -> dict[str, float]:
    """Image AUROC and AP of mutual scoring: all images compared with each other, and nobody told which are normal."""
    scores = []
    for own, one in enumerate(tqdm(features, desc="Mutual scoring", leave=False)):
        others = [other for place, other in enumerate(features) if place != own]
        chosen = np.random.default_rng(own).permutation(len(others))[:MOST_PARTNERS]
        scores.append(float(image_score(interval_average(nearest_patches(one, others[index]) for index in chosen))))
    labels = [0] * normals + [1] * (len(features) - normals)
    return {
        "image_auroc": float(roc_auc_score(labels, scores)),
        "image_ap": float(average_precision_score(labels, scores)),
        "abnormal_share": 1 - normals / len(features),
        "median_score": statistics.median(scores) / scale,
    }


def trivial_cues(normals: Sequence[Picture], abnormal: Sequence[Picture]) -> dict[str, float]:
    """AUROC of the mean gray value and of the number of pixels, whichever way round is better."""
    labels = [0] * len(normals) + [1] * len(abnormal)
    cues = {}
    for name, attribute in (("mean_gray", "gray"), ("size", "pixels")):
        area = float(roc_auc_score(labels, [getattr(one, attribute) for one in (*normals, *abnormal)]))
        cues[name] = max(area, 1 - area)
    return cues


def masks_of(folder: Path | None, abnormal: Sequence[Path]) -> dict[int, Tensor]:
    """Masks by the place of their image, reduced to the maps' size."""
    if folder is None:
        return {}
    by_stem = {path.stem: path for path in pictures_in(folder)}
    masks = {}
    for index, path in enumerate(abnormal):
        names = [f"{path.stem}{ending}" for ending in MASK_ENDINGS if f"{path.stem}{ending}" in by_stem]
        if names:
            mask = torch.from_numpy(read_mask(by_stem[names[0]])).float()[None, None]
            masks[index] = torch.nn.functional.adaptive_max_pool2d(mask, MAP_SIDE)[0]
    if not masks:
        raise ValueError(f"No mask in the folder {folder.name!r} has the name of an abnormal image.")
    return masks


def describe(record: Mapping[str, Any]) -> str:
    """A Markdown table."""
    lines = ["| | " + " | ".join(f"k = {k}" for k in record["k"]) + " |", "|---" * (1 + len(record["k"])) + "|"]
    rows = [("image AUROC", record["image_auroc"]), ("image AUROC, raw features", record["image_auroc_raw"])]
    for rate in RATES:
        for title, name in (("normals flagged", "false_positive_rate"), ("abnormal flagged", "sensitivity")):
            found = {k: cell[f"{rate:g}"] for k, cell in record[name].items() if f"{rate:g}" in cell}
            rows.append((f"{title} at {rate:.0%}", found))
    rows += [
        (title, record[name])
        for title, name in (("pixel AUROC", "pixel_auroc"), ("AUPRO", "pixel_aupro"))
        if name in record
    ]
    for title, cells in rows:
        shown = [cells.get(str(k)) for k in record["k"]]
        texts = ["" if one is None else f"{one['mean']:.3f} [{one['min']:.3f} - {one['max']:.3f}]" for one in shown]
        if any(texts):
            lines.append(f"| {title} | " + " | ".join(texts) + " |")
    if "cohort" in record:
        found = record["cohort"]
        lines.append(f"\nWithout normals, each with all others: image AUROC {found['image_auroc']:.3f}.")
    cues = record["trivial_cues"]
    lines.append(f"\nTrivial cues: mean gray {cues['mean_gray']:.3f}, number of pixels {cues['size']:.3f}.")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, Any]:
    encoder = make_encoder(options.encoder, options.weights)
    ks = sorted(set(options.k))
    normal_paths, abnormal_paths = pictures_in(options.normal), pictures_in(options.abnormal)
    draws = draw_normals(len(normal_paths), ks[-1], options.draws, options.seed)
    masks = masks_of(options.masks, abnormal_paths)
    normals = encode(normal_paths, encoder, "normal images")
    abnormal = encode(abnormal_paths, encoder, "abnormal images")
    record: dict[str, Any] = {
        "encoder": encoder.identity.name,
        "encoder_digest": encoder.identity.digest,
        "images": {"normal": len(normals), "abnormal": len(abnormal)},
        "k": ks,
        "draws": options.draws,
        "seed": options.seed,
    }
    one_kind = Distances([one.normalised for one in normals], [one.normalised for one in abnormal], draws)
    record |= measure(one_kind, draws, ks, masks, encoder.grid[0])
    other = Distances([one.raw for one in normals], [one.raw for one in abnormal], draws)
    record["image_auroc_raw"] = measure(other, draws, ks, {}, encoder.grid[0])["image_auroc"]
    if options.cohort:
        together = [one.normalised for one in (*normals, *abnormal)]
        record["cohort"] = cohort_figures(together, len(normals), encoder.largest_distance)
    record["trivial_cues"] = trivial_cues(normals, abnormal)
    record["machine"] = machine(torch.device("cpu"))
    return record


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--normal", type=Path, required=True, metavar="DIR", help="folder of normal pictures")
    parser.add_argument("--abnormal", type=Path, required=True, metavar="DIR", help="folder of abnormal pictures")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="masks of the abnormal pictures")
    parser.add_argument("--k", type=numbers, default=[4, 16, 32], metavar="K,K", help="normals (default 4,16,32)")
    parser.add_argument("--draws", type=int, default=6, help="of the normals (default 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--encoder", default="efficientnet-lite0", help="or timm:NAME, torchvision:NAME")
    parser.add_argument("--weights", metavar="FILE", help="of the encoder, where it is not a package's")
    parser.add_argument(
        "--cohort", action="store_true", help="also compare all images with each other, without normals (slow)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this new file")
    options = parser.parse_args(arguments)
    if options.draws < 1 or min(options.k) < 1:
        parser.error("--draws and --k must be at least 1.")
    for folder in (options.normal, options.abnormal, *([options.masks] if options.masks else [])):
        if not folder.is_dir():
            parser.error(f"{folder} is no folder.")
    if options.json and options.json.exists():
        parser.error(f"{options.json} exists; give another name.")
    return options


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = parse_arguments(arguments)
    try:
        record = run(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(describe(record))
    if options.json:
        write_record(options.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
