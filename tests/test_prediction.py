# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip import Predictor
from monai_anomalyclip.data import InputCatalogue


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_files_are_written_on_request_only(
    predictor: Predictor, ct_study: Path, noise_picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prediction, frame = predictor(ct_study), predictor(np.asarray(Image.open(noise_picture)))
    assert not list(tmp_path.iterdir())
    names = sorted(path.name for path in prediction.save(tmp_path / "out", name="a"))
    assert names == ["a_map.nii.gz", "a_mask.nii.gz", "a_overlay.jpg", "a_seg.dcm", "a_sr.dcm", "a_worst.jpg"]
    written = nib.load(tmp_path / "out" / "a_map.nii.gz")  # type: ignore[attr-defined]
    assert np.abs(np.asarray(written.dataobj) - np.asarray(prediction.map[0])).max() <= 1 / 65536 + 1e-7
    assert {path.name for path in frame.save(tmp_path / "out", name="b")} >= {"b_heat.png", "b_mask.png"}
    (name,) = InputCatalogue(ct_study).sources
    assert all(path.name.startswith(f"{name}_") for path in prediction.save(tmp_path / "named"))
    before = (tmp_path / "out" / "a_map.nii.gz").read_bytes()
    with pytest.raises(FileExistsError, match="a_map"):
        prediction.save(tmp_path / "out", name="a")
    assert (tmp_path / "out" / "a_map.nii.gz").read_bytes() == before


def test_pictures_for_people(predictor: Predictor, ct_study: Path, noise_picture: Path) -> None:
    prediction = predictor(ct_study)
    assert prediction.overlay(0).size == predictor(ct_study).image.shape[1:3]
    with pytest.raises(IndexError, match="0 to 3"):
        prediction.overlay(4)
    assert prediction._repr_png_().startswith(b"\x89PNG")
    page = predictor(noise_picture)._repr_html_()
    assert "anomaly score" in page
    assert "Research use only" in page
    assert str(noise_picture) not in page


def test_scores_are_the_logistic_function_of_the_margin(predictor: Predictor, noise_picture: Path) -> None:
    prediction = predictor(noise_picture)
    assert prediction.margins is not None
    assert prediction.scores == pytest.approx(1 / (1 + np.exp(-prediction.margins.astype(np.float64))), rel=1e-5)


def test_what_an_image_cannot_give_is_refused(predictor: Predictor, noise_picture: Path) -> None:
    prediction = predictor(noise_picture)
    with pytest.raises(ValueError, match=r"geometry of this image is '\w+': it has no affine for NIfTI"):
        prediction.to_nifti()
    with pytest.raises(ValueError, match="Only DICOM images can have a DICOM segmentation"):
        prediction.to_dicom_seg()
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got {threshold}"):
            prediction.overlay(threshold=threshold)
