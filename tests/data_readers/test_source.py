# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_anomalyclip.data.source import ReadOptions, frame_ranges
from monai_anomalyclip.data.sources import NiftiSource


def test_options_that_cannot_be() -> None:
    for wrong, match in (
        ({"nifti_form": "both"}, "nifti_form must be 'refuse', 'sform' or 'qform', got 'both'"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"preset": "ct-brian"}, "There is no intensity preset 'ct-brian': choose one of auto"),
    ):
        with pytest.raises(ValueError, match=match):
            ReadOptions(**wrong)


@pytest.mark.parametrize("size", [(10, 10), (480, 640), (1080, 1920), (4000, 6000)])
def test_parts_cover_all_frames_once_and_fit_into_memory(size: tuple[int, int]) -> None:
    parts = frame_ranges(200, *size)
    assert [frame for start, stop in parts for frame in range(start, stop or 0)] == list(range(200))
    largest = max((stop or 0) - start for start, stop in parts)
    assert largest <= 64
    assert largest == 1 or largest * size[0] * size[1] * 3 * 4 <= 2**28


def test_state_tells_whether_the_files_are_the_same(tmp_path: Path) -> None:
    affine = np.eye(4)
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 40), np.float32), affine), tmp_path / "v.nii")
    other = np.zeros((40, 40, 40), np.float32)
    other[8:32, 8:32, 8:32] = 1  # of the same size: only the middle differs
    nib.save(nib.Nifti1Image(other, affine), tmp_path / "w.nii")
    assert (tmp_path / "v.nii").stat().st_size == (tmp_path / "w.nii").stat().st_size
    source = NiftiSource(tmp_path / "v.nii", "v.nii", ReadOptions())
    before = source.state()
    os.utime(tmp_path / "v.nii", (0, 0))  # copied anew
    assert source.state() == before
    (tmp_path / "w.nii").rename(tmp_path / "v.nii")
    assert source.state() != before
    os.truncate(tmp_path / "v.nii", 1000)
    assert source.state() != before
    (tmp_path / "v.nii").unlink()
    assert source.state() != before
