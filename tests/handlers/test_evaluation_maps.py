# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import roc_auc_score

from monai_anomalyclip.handlers import EvaluationMaps
from monai_anomalyclip.metrics import PixelAUROCMetric


def run(output: Path, batches: list[list[dict[str, Any]]], enabled: bool = True) -> None:
    def columns(*keys: str) -> Any:
        return lambda batch: tuple([item[key] for item in batch] for key in keys)

    engine = Engine(lambda _, batch: batch)
    parts = (columns("index", "class"), columns("score", "image_label"), columns("map", "mask", "known"))
    EvaluationMaps(output, *parts, enabled=enabled).attach(engine)
    engine.run(batches)


@pytest.fixture
def items() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for index in (4, 0, 2):
        mask = (torch.rand(1, 12, 15, generator=generator) > 0.7).float()
        made.append({
            "index": index, "class": "DOE^JANE", "score": torch.tensor(0.1 * index), "image_label": 1, "mask": mask,
            "map": torch.rand(1, 12, 15, generator=generator) * 0.5 + mask * 0.2, "known": index != 2,
        })  # fmt: skip
    return made


def test_figures_can_be_computed_again(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path, [items[:2], items[2:]])
    files = sorted((tmp_path / "maps").iterdir())
    assert [file.name for file in files] == ["00000.npz", "00002.npz", "00004.npz"]
    metric = PixelAUROCMetric()
    metric(torch.stack([item["map"] for item in items]), torch.stack([item["mask"] for item in items]))
    loaded = [dict(np.load(file)) for file in files]
    again = roc_auc_score(*(np.concatenate([one[key].ravel() for one in loaded]) for key in ("mask", "anomaly_map")))
    assert float(metric.aggregate()) == pytest.approx(again, abs=1e-6)
    assert [float(one["anomaly_score"]) for one in loaded] == pytest.approx([0, 0.2, 0.4])
    assert [bool(one["mask_known"]) for one in loaded] == [True, False, True]
    for one, item in zip(loaded, sorted(items, key=lambda item: item["index"]), strict=True):
        assert np.array_equal(one["anomaly_map"], item["map"][0])
        assert one["mask"].dtype == np.uint8


def test_nothing_is_written_unless_asked_for(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(tmp_path, [items], enabled=False)
    assert not list(tmp_path.iterdir())
