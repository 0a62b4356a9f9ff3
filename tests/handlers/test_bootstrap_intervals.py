# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_anomalyclip.handlers import BootstrapIntervals

NAMES = ["b", "a", "b", "a", "a", "b", "a", "b", "a", "a", "b", "b"]
RESAMPLES = 50


def items() -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    made = []
    for index, name in enumerate(NAMES):
        mask = torch.zeros(1, 6, 6)
        mask[:, 1 : 2 + index % 3, 2:5] = index // 2 % 2
        made.append(
            {
                "index": index,
                "class": name,
                "score": float(random.random()),
                "label": index // 2 % 2,
                "map": torch.tensor(random.random((1, 6, 6)), dtype=torch.float32),
                "mask": mask,
                "known": index != 5,
            }
        )
    return made


def run(data: list[dict[str, Any]], size: int = 5, pixels: bool = False, **options: Any) -> dict[str, float]:
    def columns(*keys: str) -> Any:
        return lambda batch: tuple([item[key] for item in batch] for key in keys)

    engine = Engine(lambda _, batch: batch)
    BootstrapIntervals(
        columns("index", "class"),
        columns("score", "label"),
        columns("map", "mask", "known") if pixels else None,
        **{"resamples": RESAMPLES, **options},
    ).attach(engine)
    metrics: dict[str, float] = engine.run([data[i : i + size] for i in range(0, len(data), size)]).metrics
    return metrics


def draws(random: np.random.Generator, count: int) -> list[np.ndarray]:
    weights = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return [np.repeat(np.arange(count), row) for row in weights]


def resampled(data: list[dict[str, Any]], random: np.random.Generator, oracle: Any, pixels: bool) -> np.ndarray:
    """The metric of each resample; NaN where one of the kinds is missing."""
    values = []
    for own in draws(random, len(data)):
        chosen = [data[index] for index in own]
        if pixels:
            labels = torch.cat([item["mask"].flatten() for item in chosen]).numpy()
            scores = torch.cat([item["map"].flatten() for item in chosen]).numpy()
        else:
            labels, scores = (np.array([item[key] for item in chosen]) for key in ("label", "score"))
        values.append(oracle(labels, scores) if 0 < labels.sum() < len(labels) else np.nan)
    return np.array(values)


@pytest.mark.parametrize(
    ("name", "oracle", "pixels"),
    [
        ("image_auroc", roc_auc_score, False),
        ("image_ap", average_precision_score, False),
        ("pixel_auroc", roc_auc_score, True),
        ("pixel_ap", average_precision_score, True),
    ],
)
def test_ends_are_those_of_resampling_one_by_one(name: str, oracle: Any, pixels: bool) -> None:
    data = items()
    metrics = run(data, pixels=pixels, seed=7, level=0.9)
    used = [item for item in data if item["known"] or not pixels]
    together = np.random.default_rng(7)
    both = []
    for part in ("a", "b"):
        own = [item for item in used if item["class"] == part]
        values = resampled(own, np.random.default_rng(7), oracle, pixels)
        ends = metrics[f"{name}_low/{part}"], metrics[f"{name}_high/{part}"]
        assert ends == pytest.approx(tuple(np.nanquantile(values, [0.05, 0.95])), abs=1e-9)
        both.append(resampled(own, together, oracle, pixels))
    means = np.nanmean(np.array(both)[:, np.isfinite(both).any(axis=0)], axis=0)
    ends = metrics[f"{name}_low"], metrics[f"{name}_high"]
    assert ends == pytest.approx(tuple(np.nanquantile(means, [0.05, 0.95])), abs=1e-9)


def test_pixels_are_optional_and_aupro_is_there() -> None:
    assert {key.partition("_low")[0] for key in run(items()) if "_low" in key} == {"image_auroc", "image_ap"}
    metrics = run(items(), pixels=True)
    assert 0 <= metrics["pixel_aupro_low"] < metrics["pixel_aupro_high"] <= 1


def test_batches_and_order_do_not_matter() -> None:
    data = items()
    assert run(data) == run(data[::-1], size=2) != run(data, seed=1)


def test_processes_pool_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data = items()
    alone = run(data)
    others = [(item["index"], item["class"], item["score"], item["label"]) for item in data[1::2]]
    monkeypatch.setattr("ignite.distributed.all_gather", lambda mine: [mine, others if mine else []])
    assert run(data[::2]) == alone


def test_scores_that_are_not_finite_have_no_interval() -> None:
    data = items()
    data[1]["score"] = float("nan")  # of class a
    metrics = run(data)
    assert set(metrics) == {f"image_{name}_{end}/b" for name in ("auroc", "ap") for end in ("low", "high")}


def test_other_processes_compute_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    assert run(items()) == {}
