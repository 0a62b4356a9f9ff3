# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Limits that are taken from the values of gray series, held against what is known of the phantoms and of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from monai_anomalyclip.data import load_input
from monai_anomalyclip.data.errors import UnreadableInputError

Y, X = np.mgrid[:80, :80]
RADIUS = np.hypot(X - 40, Y - 40)
TISSUE = RADIUS < 30


def stored(index: int, padded: bool = True) -> np.ndarray:
    """Tissue 1950 to 2150 within padding of 4 within padding of 0, as vendors write it; or tissue everywhere."""
    noise = np.random.default_rng(index).normal(0, 6, Y.shape)
    tissue = (2020 + 60 * np.cos(X / 5) + noise).round()
    return np.where(TISSUE, tissue, np.where(RADIUS < 38, 4, 0)) if padded else tissue


def edit(padded: bool, window: tuple[float, float] | None) -> Callable[[Any, int], None]:
    def change(header: Any, index: int) -> None:
        header.RescaleSlope, header.RescaleIntercept = 9.5, -19500
        header.PixelRepresentation, header.BitsStored, header.HighBit = 0, 16, 15
        header.PixelData = stored(index, padded).astype(np.uint16).tobytes()
        if window:
            header.WindowWidth, header.WindowCenter = window

    return change


def series(phantoms: ModuleType, folder: Path, padded: bool, window: tuple[float, float] | None, **options: Any) -> Any:
    phantoms.make_series(
        folder, modality="MR", count=6, size=(80, 80), signed=False, edit=edit(padded, window), **options
    )
    image = load_input(folder)
    return image.numpy()[0].T, json.loads(image.meta["intensity"])


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_two_levels_of_padding_leave_tissue_its_contrast(
    tmp_path: Path, phantoms: ModuleType, photometric: str
) -> None:
    shown, record = series(phantoms, tmp_path, True, (1600, 200), photometric=photometric)
    values = 9.5 * np.stack([stored(index)[TISSUE] for index in range(6)]) - 19500
    limits = sorted((record["low"], record["high"]))
    np.testing.assert_allclose(limits, np.percentile(values, [0.5, 99.5]), atol=20)
    assert (shown[:, ~TISSUE] == 0).all()
    assert np.ptp(shown[:, TISSUE]) > 0.99
    assert not [warning for warning in record["warnings"] if "own window" in warning]


def test_limits_that_grossly_disagree_with_the_files_own_window_warn(tmp_path: Path, phantoms: ModuleType) -> None:
    """Tissue runs from -1100 to 1100 and more; a window of a tenth of that, or one that lies elsewhere, is another."""
    for name, window, warned in (
        ("same", (1600, 200), False),
        ("none", None, False),
        ("narrow", (60, 200), True),
        ("elsewhere", (300, 9000), True),
        ("wider", (5000, 0), False),
    ):
        _, record = series(phantoms, tmp_path / name, False, window, seed=name)
        found = [warning for warning in record["warnings"] if "give the preset dicom" in warning]
        assert (name, bool(found)) == (name, warned)


def test_a_damaged_table_that_nobody_asked_for_harms_no_ct(tmp_path: Path, phantoms: ModuleType) -> None:
    def change(header: Any, _: int) -> None:
        item = Dataset()
        item.LUTData = [1, 2, 3]  # without a descriptor
        item["LUTData"].VR = "US"
        header.VOILUTSequence = [item]

    phantoms.make_series(tmp_path, count=2, edit=change)
    phantoms.make_series(tmp_path / "whole", count=2)
    plain = load_input(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    found = load_input(tmp_path)
    assert json.loads(found.meta["intensity"])["preset"] == json.loads(plain.meta["intensity"])["preset"] != "dicom"
    assert np.array_equal(found.numpy(), plain.numpy())
    with pytest.raises(UnreadableInputError, match="table"):
        load_input(tmp_path, {"preset": "dicom"})


@pytest.mark.parametrize(("slope", "picture"), [(1.0, True), (1.0000003, True), (0.99999, True), (1.5, False)])
def test_an_ultrasound_of_8_bits_is_a_picture_whatever_the_last_digit_of_its_slope(
    tmp_path: Path, phantoms: ModuleType, slope: float, picture: bool
) -> None:
    """Its values are shown as they are stored, black at 0 and white at 255, though none of them reaches these."""
    values = (50 + 100 * X / 79).astype(np.uint8)

    def change(header: Any, _: int) -> None:
        header.RescaleSlope, header.RescaleIntercept = slope, 0
        header.PixelRepresentation, header.BitsAllocated, header.BitsStored, header.HighBit = 0, 8, 8, 7
        header.PixelData = values.tobytes()

    phantoms.make_series(tmp_path, modality="US", count=1, size=(80, 80), signed=False, edit=change)
    shown = load_input(tmp_path).numpy().squeeze().T
    assert np.allclose(shown, values / 255, atol=1e-4) == picture
