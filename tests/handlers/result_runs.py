# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of the result writer without a network: what an evaluator would give of each input, and what is written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.data.meta_tensor import MetaTensor
from torch import nn

from monai_anomalyclip.data import InputCatalogue, InputPart, load_input
from monai_anomalyclip.handlers.result_writer import AnomalyResultWriter

Item = dict[str, Any]
OWN = ["NOTICE.txt", "inputs.csv", "report.html", "results.json", "scores.csv"]


class Network(nn.Module):
    """As much of a network as a record tells."""

    backbone_name = "ViT-tiny"
    backbone_sha256 = "ab" * 32

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = {"depth": 3, **settings}


def catalogue_of(inputs: Path, **options: Any) -> InputCatalogue:
    return InputCatalogue(inputs, **{"keep_names": True, **options})


def writer_of(out: Path, catalogue: InputCatalogue, **options: Any) -> AnomalyResultWriter:
    return AnomalyResultWriter(out, catalogue, options.pop("network", Network()), **options)


def scored(item: Item, threshold: float | None = None) -> Item:
    """What an evaluator would give of an item of the catalogue."""
    image = load_input(item["image"]) if isinstance(item["image"], InputPart) else item["image"]
    pixels = image.as_tensor().float()
    pixels = pixels / 255 if image.dtype == torch.uint8 else pixels
    heat = torch.rand(1, *image.shape[1:])
    slices = 1 if heat.ndim == 3 else heat.shape[3]
    result = {
        **item,
        "image": MetaTensor(pixels, meta=image.meta),
        "anomaly_map": MetaTensor(heat),
        "anomaly_score": torch.linspace(0.1, 0.7, slices),
        "score_s": 0.5,
    }
    return result if threshold is None else {**result, "pred": (heat >= threshold).to(torch.uint8)[0]}


def scored_items(catalogue: InputCatalogue) -> list[Item]:
    return [scored(item) for item in catalogue.items()]


def item_of(catalogue: InputCatalogue, name: str) -> Item:
    (item,) = (item for item in catalogue.items() if item["name"] == name)
    return scored(item)


def run(writer: AnomalyResultWriter, items: Sequence[Item]) -> Engine:
    engine = Engine(lambda _, item: [item])
    engine.failures = {}  # type: ignore[attr-defined]
    writer.attach(engine)
    engine.run(items)
    return engine


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files_of(folder: Path) -> list[str]:
    """All visible files but for the records."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".report" not in path.parts and not path.name.endswith("_record.json")
    )
