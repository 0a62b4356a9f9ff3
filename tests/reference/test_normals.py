# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.data import InputCatalogue, UnreadableInputError
from monai_anomalyclip.reference import NormalImage, normal_images, slices_of
from monai_anomalyclip.reference.normal_facts import preset_of


def save_picture(path: Path, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def read(folder: Path, **options: object) -> list[NormalImage]:
    return list(normal_images(InputCatalogue(folder), **options))  # type: ignore[arg-type]


def test_a_picture_stands_alone(tmp_path: Path) -> None:
    pixels = save_picture(tmp_path / "QUIMBY.png")
    (found,) = read(tmp_path)
    assert found.image.shape == (3, 20, 30)
    assert found.image.permute(1, 2, 0).numpy() == pytest.approx(pixels / 255, abs=1e-6)
    assert found.group is None
    assert "QUIMBY" not in found.name


def test_slices_of_a_volume_are_seen_as_a_radiologist_does(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1, 4, 1])), tmp_path / "a.nii.gz")
    found = read(tmp_path)
    assert len(found) == 7
    assert len({one.group for one in found}) == 1
    assert found[0].group is not None
    assert [one.index for one in found] == list(range(7))
    limits = np.percentile(volume[volume > volume.min()], [0.5, 99.5])
    scaled = np.clip((volume - limits[0]) / (limits[1] - limits[0]), 0, 1)
    # RAS: columns run towards the patient's left and rows towards posterior, so both axes are turned round.
    assert found[3].image[0].numpy() == pytest.approx(scaled[::-1, ::-1, 3].T, abs=0.01)
    assert preset_of(found[3].image) == "percentile"
    assert read(tmp_path, slice_axis=0)[0].image.shape == (1, 7, 6)


def test_volumes_of_the_same_name_are_not_the_same_input(tmp_path: Path) -> None:
    for place, seed in (("a", 0), ("b", 1)):
        (tmp_path / place).mkdir()
        volume = np.random.default_rng(seed).random((4, 4, 3), dtype=np.float32)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / place / "scan.nii.gz")
    assert read(tmp_path / "a")[0].group != read(tmp_path / "b")[0].group


def test_series_of_one_patient_belong_together(tmp_path: Path, phantoms: ModuleType) -> None:
    for seed, patient in (("a", "QUIMBY"), ("b", "QUIMBY"), ("c", "ROE")):

        def name(dataset: object, _: int, patient: str = patient) -> None:
            dataset.PatientID = patient  # type: ignore[attr-defined]

        phantoms.make_series(tmp_path, count=2, seed=seed, edit=name)
    groups = [one.group for one in read(tmp_path)]
    assert sorted(groups.count(one) for one in set(groups)) == [2, 4]
    assert all(re.fullmatch("patient [0-9a-f]{64}", one) for one in groups)  # a reference holds no identifier


def test_folders_as_patients(tmp_path: Path) -> None:
    for number, place in enumerate(("p1/a.png", "p1/b.png", "p2/a.png")):
        save_picture(tmp_path / place, number)
    groups = [one.group for one in read(tmp_path, grouping="folder")]
    assert len(set(groups)) == 2
    with pytest.raises(ValueError, match="grouping='study' is not one of input, folder"):
        read(tmp_path, grouping="study")


def test_what_cannot_be_read_is_told_without_its_name(tmp_path: Path) -> None:
    save_picture(tmp_path / "good.png")
    (tmp_path / "QUIMBY.png").write_text("no picture")
    told: list[tuple[str, str]] = []
    found = read(tmp_path, failed=lambda name, reason: told.append((name, reason)))
    assert len(found) == 1
    ((name, reason),) = told
    assert "not a picture" in reason
    assert "QUIMBY" not in name + reason
    with pytest.raises(UnreadableInputError, match="not a picture"):
        read(tmp_path)


def test_a_volume_of_nan_is_told(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 4, 3), np.nan, np.float32), np.eye(4)), tmp_path / "nan.nii.gz")
    save_picture(tmp_path / "good.png")
    told: list[str] = []
    assert len(read(tmp_path, failed=lambda _, reason: told.append(reason))) == 1
    assert len(told) == 1


def test_single_voxels_of_nan_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    values[1, 2, 1] = np.nan
    nib.loadsave.save(nib.nifti1.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    assert len(list(normal_images(InputCatalogue(tmp_path)))) == 3
    assert "1 of 192 voxels are NaN or infinite and taken as background." in caplog.text


def test_a_path_alone(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    (image,) = slices_of(tmp_path / "a.png")
    assert torch.equal(torch.as_tensor(image), torch.as_tensor(read(tmp_path)[0].image))
