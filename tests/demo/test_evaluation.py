# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_anomalyclip.data import load_datalist, read_frame, read_mask
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.evaluation import evaluate_families, markdown_table
from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.transforms import CLIPMaskPreprocess, CLIPPreprocess, smooth_anomaly_map


def test_table_equals_a_plain_computation(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("phantoms")
    write_datalist(folder, training=12, validation=12, testing=16, progress=False)
    items = load_datalist(folder / "datalist.json", "testing")
    network = demo_network(prompt_length=0, deep_prompt_depth=1, deep_prompt_length=0)
    table = evaluate_families({"words": network}, items)["words"]
    assert set(table) == {item["class"] for item in items} | {"mean"}
    family = items[0]["class"]
    scores, labels, maps, masks = [], [], [], []
    for item in items:
        if item["class"] != family:
            continue
        with torch.inference_mode():
            output = network.predict(CLIPPreprocess(112)(read_frame(item["image"]).transpose(2, 0, 1))[None])
        scores.append(float(output["anomaly_score"]))
        labels.append(item["image_label"])
        maps.append(smooth_anomaly_map(output["anomaly_map"], 1.0).numpy().ravel())
        mask = (
            CLIPMaskPreprocess(112)(read_mask(item["label"])[None]) if item.get("label") else torch.zeros(1, 112, 112)
        )
        masks.append(np.asarray(mask).ravel() > 0)
    assert table[family][0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert table[family][1] == pytest.approx(roc_auc_score(np.concatenate(masks), np.concatenate(maps)), abs=1e-4)
    lit = [mask[heat.argmax()] for heat, mask in zip(maps, masks, strict=True) if mask.any()]
    assert table[family][2] == pytest.approx(np.mean(lit))
    families = [value for name, value in table.items() if name != "mean"]
    np.testing.assert_allclose(table["mean"], np.mean(families, axis=0))


def test_markdown_has_a_row_per_network_and_family() -> None:
    shown = markdown_table({"a": {"x": (0.5, 0.25, 1.0), "mean": (1, 0, 0)}, "b": {"x": (0.1, 0.2, 0.3)}})
    assert shown.splitlines()[2] == "| a | x | 0.500 | 0.250 | 1.000 |"
    assert len(shown.splitlines()) == 5
