# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_anomalyclip.demo.studies import demo_seeds, demo_volume, main, write_demo_series, write_demo_studies


def test_writes_images_and_their_lesions(tmp_path: Path) -> None:
    images = write_demo_studies(tmp_path / "studies", volumes=3, pictures=3)
    assert [image.name for image in images] == [f"brain_0{n}.nii.gz" for n in range(3)] + [
        f"colon_0{n}.png" for n in range(3)
    ]
    truth = tmp_path / "studies_truth"
    marked = [bool(np.asarray(nib.loadsave.load(truth / image.name).dataobj).any()) for image in images[:3]]
    marked += [bool(np.asarray(Image.open(truth / image.name)).any()) for image in images[3:]]
    assert marked == [True, True, False, True, True, False]
    assert sorted(path.name for path in (tmp_path / "studies").iterdir()) == sorted(image.name for image in images)


def test_what_exists_stays(tmp_path: Path) -> None:
    write_demo_studies(tmp_path / "studies", volumes=1, pictures=1)
    state = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    write_demo_studies(tmp_path / "studies", volumes=1, pictures=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == state


def test_series_for_an_archive(tmp_path: Path) -> None:
    written = write_demo_series(tmp_path / "series")
    assert [folder.name for folder in written] == [
        *(f"{family}_{number:02d}" for family in ("brain_mr", "head_ct") for number in range(3)),
        "lung_ct_00",
    ]
    assert [bool(phantom.mask.any()) for phantom in written.values()] == [True, True, False, True, True, False, True]
    headers = [pydicom.dcmread(next(folder.iterdir())) for folder in written]
    assert [header.Modality for header in headers] == ["MR"] * 3 + ["CT"] * 4
    assert len({header.StudyInstanceUID for header in headers}) == 7
    assert {len(list(folder.iterdir())) for folder in written} == {10}


def test_chosen_lesions_are_large(tmp_path: Path) -> None:
    for family, kinds in (
        ("brain_mr", {"bright tumour", "dark tumour"}),
        ("head_ct", {"bleed"}),
        ("lung_ct", {"nodule"}),
    ):
        for seed in islice(demo_seeds(family), 2):
            volume = demo_volume(family, seed)
            assert volume.kind in kinds
            assert volume.mask.sum() >= 1000


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "studies")])
    assert "12 synthetic images in" in capsys.readouterr().out
