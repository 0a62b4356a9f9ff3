# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration in one table: tuned prompts against plain words, per family of phantoms.

``python -m monai_anomalyclip.demo.evaluation --bundle_root bundles/anomalyclip_demo``
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.transforms import Compose
from sklearn.metrics import roc_auc_score
from torch import Tensor

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data import LoadFramed, LoadMaskd, feature_dataset, load_datalist
from monai_anomalyclip.demo.network import demo_dataset_dir, demo_network
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.transforms import CLIPMaskPreprocessd, CLIPPreprocessd, smooth_anomaly_map

__all__ = ["evaluate_families", "main", "markdown_table"]

_SIGMA = 1.0


Row = tuple[float, float, float]


def evaluate_families(
    networks: Mapping[str, AnomalyCLIP], items: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Row]]:
    """How well networks that share their frozen encoder, which runs once per image, find the lesions of each family.

    Args:
        networks: by name; all on one backbone with the same layers.
        items: datalist entries with ``image``, ``label``, ``image_label`` and ``class``.

    Returns:
        ``{name: {family: (image AUROC, pixel AUROC, hits)}}``, hits being the share of anomalous images whose
        highest map value lies in the lesion; the family "mean" is the mean over families.
    """
    encoder = next(iter(networks.values()))
    size = encoder.image_size
    transform = Compose(
        [LoadFramed("image"), LoadMaskd("label"), CLIPPreprocessd("image", size), CLIPMaskPreprocessd("label", size)]
    )
    dataset = feature_dataset(items, transform, encoder, cache="memory")
    batches = list(DataLoader(dataset, batch_size=32, num_workers=0))
    families = np.array([item["class"] for item in items])
    labels = torch.cat([torch.as_tensor(batch["image_label"]) for batch in batches]).numpy()
    masks = torch.cat([batch["label"] for batch in batches]).numpy() > 0
    table: dict[str, dict[str, Row]] = {}
    for name, network in networks.items():
        predictions = [_predict(network, batch) for batch in batches]
        scores, maps = (torch.cat(parts).numpy() for parts in zip(*predictions, strict=True))
        rows: dict[str, Row] = {}
        for family in dict.fromkeys(families.tolist()):
            own = families == family
            lesions = own & (labels == 1)
            highest = maps[lesions].reshape(lesions.sum(), -1).argmax(axis=1)
            rows[family] = (
                float(roc_auc_score(labels[own], scores[own])),
                float(roc_auc_score(masks[own].ravel(), maps[own].ravel())),
                float(masks[lesions].reshape(lesions.sum(), -1)[np.arange(lesions.sum()), highest].mean()),
            )
        image, pixel, hits = np.mean(list(rows.values()), axis=0).tolist()
        table[name] = {**rows, "mean": (image, pixel, hits)}
    return table


@torch.inference_mode()
def _predict(network: AnomalyCLIP, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    features = {key: torch.as_tensor(batch[key]) for key in ("global_features", "patch_features")}
    prediction = network(features, output="prediction")
    return prediction["anomaly_score"], smooth_anomaly_map(prediction["anomaly_map"], _SIGMA)


def markdown_table(table: Mapping[str, Mapping[str, Row]]) -> str:
    """A Markdown table with one row per network and family."""
    lines = ["| prompts | family | image AUROC | pixel AUROC | hits |", "|---|---|---|---|---|"]
    for name, rows in table.items():
        for family, values in rows.items():
            cells = " | ".join(f"{value:.3f}" for value in values)
            lines.append(f"| {name} | {family} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for the prompts that the demonstration bundle's training made."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_anomalyclip.demo.evaluation",
        description=f"Tuned prompts against plain words on the phantoms. {RESEARCH_USE_ONLY}",
        epilog="example: python -m monai_anomalyclip.demo.evaluation --bundle_root bundles/anomalyclip_demo",
    )
    parser.add_argument("--bundle_root", type=Path, default=Path("bundles/anomalyclip_demo"))
    parser.add_argument("--prompts", type=Path, help="default: models/model.pt in the bundle")
    parser.add_argument("--section", default="testing", help="of the datalist; default: testing (medical families)")
    parsed = parser.parse_args(arguments)
    tuned = demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4)
    tuned.load_prompts(parsed.prompts or parsed.bundle_root / "models" / "model.pt")
    plain = {"prompt_length": 0, "deep_prompt_depth": 1, "deep_prompt_length": 0}
    networks = {
        "tuned": tuned,
        "object / damaged object": demo_network(**plain),
        "flawless object / damaged object": demo_network(**plain, normal_words=("flawless object",)),
    }
    items = load_datalist(Path(demo_dataset_dir(parsed.bundle_root)) / "datalist.json", parsed.section)
    print(markdown_table(evaluate_families(networks, items)))


if __name__ == "__main__":
    main()
