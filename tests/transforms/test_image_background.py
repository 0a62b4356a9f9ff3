# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Background as normalisation, cropping, resampling and padding leave it, against the true mask of the head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_anomalyclip.transforms.image_background import find_background
from monai_anomalyclip.transforms.intensity import scale_by_percentiles_
from monai_anomalyclip.transforms.intensity_presets import IntensityChoice, choose_preset

Y, X, Z = np.mgrid[:60, :50, :8]
RADIUS = np.hypot((Y - 30) / 24, (X - 25) / 20)
HEAD = RADIUS < 1
FIELD = RADIUS < 1.2
RNG = np.random.default_rng(0)
TISSUE = 400 + 120 * np.cos(Y / 6) * np.sin(X / 5) + RNG.normal(0, 15, HEAD.shape)
SCORED = (TISSUE - TISSUE[HEAD].mean()) / TISSUE[HEAD].std()
IN_ZERO = np.where(HEAD, SCORED, 0)
ROUNDED = RNG.normal(0, 1e-7, HEAD.shape)  # what arithmetic in float32 leaves around a value
FAR = -2000 * (1 + ROUNDED)
CROP = np.s_[12:49, 8:43]  # air in the corners only
HALF = np.s_[12:31, 8:43]

VOLUMES = {
    "exact zero": IN_ZERO,
    "rounding around zero": IN_ZERO + ROUNDED,
    "rounding on half of the zeros": IN_ZERO + ROUNDED * (RNG.random(HEAD.shape) < 0.5),
    "padding beside zero": np.where(FIELD, np.where(HEAD, TISSUE, 0), -2000),
    "padding of -1 beside zero": np.where(FIELD, np.where(HEAD, TISSUE, 0), -1),
    "padding beside zero within z-scores": np.where(FIELD, IN_ZERO, -2000),
    "rounded padding": np.where(HEAD, TISSUE, FAR),
    "rounded padding beside zero": np.where(FIELD, np.where(HEAD, TISSUE, 0), FAR),
    "rounded padding beside rounded zero": np.where(FIELD, IN_ZERO + ROUNDED, FAR),
}


def scaled(volume: np.ndarray) -> tuple[np.ndarray, IntensityChoice]:
    values = torch.from_numpy(volume.astype(np.float32))[None].clone()
    choice = scale_by_percentiles_(values, choose_preset("MR"))
    return values[0].numpy(), choice


def as_by_the_mask(volume: np.ndarray, head: np.ndarray) -> np.ndarray:
    low, high = np.percentile(volume[head], [0.5, 99.5])
    return np.where(head, np.clip((volume - low) / (high - low), 0, 1), 0)


@pytest.mark.parametrize("name", VOLUMES)
def test_scaled_as_by_the_mask_of_the_head(name: str) -> None:
    result, _ = scaled(VOLUMES[name])
    np.testing.assert_allclose(result, as_by_the_mask(VOLUMES[name], HEAD), atol=0.005)


@pytest.mark.parametrize("crop", [CROP, HALF], ids=["all corners", "two corners"])
@pytest.mark.parametrize("rounding", [0, 1], ids=["exact", "rounding"])
def test_air_in_the_corners_only(crop: tuple[slice, ...], rounding: int) -> None:
    volume, head = (IN_ZERO + rounding * ROUNDED)[crop], HEAD[crop]
    assert 0.01 < 1 - head.mean() < 0.15
    result, choice = scaled(volume)
    np.testing.assert_allclose(result, as_by_the_mask(volume, head), atol=0.005)
    assert "shown black" in " ".join(choice.warnings)


def test_air_in_one_corner_is_doubtful() -> None:
    """It is left as it is, and the record says so."""
    volume = IN_ZERO[12:31, 8:26]
    result, choice = scaled(volume)
    assert find_background(torch.from_numpy(volume.astype(np.float32))) == ()
    assert result[~HEAD[12:31, 8:26]].min() > 0.1
    assert "set it to the smallest" in " ".join(choice.warnings)


@pytest.mark.parametrize("noise", [1e-3, 0.02])
def test_noise_of_air_is_measured(noise: float) -> None:
    """However little beside a bright organ: dark it is anyway, and the limits are those of all values."""
    volume = np.where(HEAD, np.exp(SCORED) * 5, 0) + RNG.normal(0, noise, HEAD.shape)
    result, choice = scaled(volume)
    foreground = volume[volume > volume.min()]
    np.testing.assert_allclose([choice.low, choice.high], np.percentile(foreground, [0.5, 99.5]), rtol=1e-4)
    assert choice.warnings == ()
    assert result[~HEAD].max() < 0.02


@pytest.mark.parametrize("unit", [1, 0.25])
def test_saturation_is_no_background(unit: float) -> None:
    volume = np.clip(np.where(HEAD, TISSUE, RNG.rayleigh(5, HEAD.shape)).round(), 0, 430)[15:45, 12:38] * unit
    result, choice = scaled(volume)
    assert (result[volume == 430 * unit] == 1).all()
    assert choice.warnings == ()


def test_what_is_no_background() -> None:
    rng = np.random.default_rng(1)
    noise = torch.from_numpy(rng.rayleigh(4, HEAD.shape).astype(np.float32))
    head = torch.from_numpy(TISSUE.astype(np.float32))
    inside = torch.from_numpy(HEAD)
    assert find_background(torch.where(inside, head, noise)) == ()  # noisy air
    assert find_background(torch.where(inside, head, noise.round())) == ()
    assert find_background(torch.zeros(1, 4, 4)) == ()
    assert find_background(torch.full((1, 4, 4), float("nan"))) == ()
    drawing = np.select([RADIUS < 0.4, RADIUS < 0.8, HEAD], [900, 600, 300], 0).astype(np.float32)
    assert find_background(torch.from_numpy(drawing)) == ()  # few values: a drawing, in which none was measured
    # With the mixed values of its edges it is more than a drawing: its air is found, its outermost tissue is none.
    blurred = drawing + (np.abs(RADIUS - 0.8) < 0.02) * rng.uniform(-200, 200, HEAD.shape)
    assert find_background(torch.from_numpy(blurred.astype(np.float32))) == (0,)
    hole = np.where(np.hypot(RADIUS, Z / 8) < 0.4, 450, TISSUE)
    assert find_background(torch.from_numpy(hole.astype(np.float32))) == ()  # frequent, but not at the border


NOISE = RNG.normal(0, 1, HEAD.shape)


@pytest.mark.parametrize("amplitude", [1e-7, 1e-6, 1e-5, 1e-4, 5e-4])
def test_jitter_of_a_z_scored_background_is_black(amplitude: float) -> None:
    """As filters and lossy files leave it; voxels of the head that have the value and touch the air may go."""
    volume = np.where(HEAD, SCORED, amplitude * NOISE)
    result, choice = scaled(volume)
    assert (result[~HEAD] == 0).all()
    assert np.count_nonzero(np.abs(result - as_by_the_mask(volume, HEAD)) > 0.005) <= 5
    assert "shown black" in " ".join(choice.warnings)


@pytest.mark.parametrize("amplitude", [1e-3, 1e-2, 3e-2])
def test_noise_on_a_z_scored_background_is_doubtful(amplitude: float) -> None:
    _, choice = scaled(np.where(HEAD, SCORED, amplitude * NOISE))
    assert "set it to the smallest" in " ".join(choice.warnings)


@pytest.mark.parametrize("level", [0, 100])
@pytest.mark.parametrize("amplitude", [1e-7, 1e-5, 1e-4, 1e-3])
def test_jitter_of_dark_air_does_not_move_the_limits(amplitude: float, level: float) -> None:
    still = np.where(HEAD, TISSUE + level, level)
    expected, exact = scaled(still)
    result, choice = scaled(still + np.where(HEAD, 0, amplitude * NOISE))
    np.testing.assert_allclose(result, expected, atol=1e-3)
    np.testing.assert_allclose([choice.low, choice.high], [exact.low, exact.high], rtol=1e-3)
    assert choice.warnings == ()


def test_jitter_of_padding_beside_air() -> None:
    noisy = np.where(FIELD, np.where(HEAD, TISSUE, 0), -2000 + 0.02 * NOISE)
    np.testing.assert_allclose(scaled(noisy)[0], as_by_the_mask(noisy, HEAD), atol=0.005)


def test_tissue_at_the_border_is_measured() -> None:
    """However little its noise: an image cropped to one organ is neither blackened nor doubted."""
    smooth = 50 + 4 * np.sin(Y / 9) * np.cos(X / 7) + RNG.normal(0, 1, HEAD.shape)
    organ = np.where(np.hypot(Y - 30, X - 25) < 12, 90, 0) + smooth
    result, choice = scaled(organ)
    assert choice.warnings == ()
    assert (result > 0).mean() > 0.98


def test_a_level_that_does_not_reach_the_border_is_no_background() -> None:
    """Of an image all around which is tissue, or nothing that was measured."""
    hole = TISSUE.copy()
    hole[20:40, 15:35, 2:6] = 0
    assert find_background(torch.from_numpy(hole)) == ()
    unmeasured = np.where(HEAD, TISSUE, 0)
    assert find_background(torch.from_numpy(unmeasured)) == (0,)
    unmeasured[[0, -1]] = unmeasured[:, [0, -1]] = unmeasured[:, :, [0, -1]] = np.nan
    assert find_background(torch.from_numpy(unmeasured)) == ()
