# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Windows, percentiles and background, against NumPy, highdicom and images whose background is known."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest
import torch

from monai_anomalyclip.transforms.intensity import (
    apply_window,
    percentile_limits,
    scale_,
    scale_by_percentiles_,
)
from monai_anomalyclip.transforms.intensity_presets import PRESETS, IntensityChoice, choose_preset

Y, X, Z = np.mgrid[:60, :50, :8]
RADIUS = np.hypot((Y - 30) / 24, (X - 25) / 20)
HEAD = RADIUS < 1


def tissue(seed: int = 0) -> np.ndarray:
    """Measured values of a head, 200 to 600, in the whole volume."""
    noise = np.random.default_rng(seed).normal(0, 15, HEAD.shape)
    return (400 + 120 * np.cos(Y / 6) * np.sin(X / 5) + noise).astype(np.float32)


def scaled(volume: np.ndarray) -> tuple[np.ndarray, IntensityChoice]:
    values = torch.from_numpy(volume.astype(np.float32))[None].clone()
    choice = scale_by_percentiles_(values, choose_preset("MR"))
    return values[0].numpy(), choice


@pytest.mark.parametrize("name", PRESETS)
def test_windows_as_highdicom_applies_them(name: str) -> None:
    values = np.linspace(-1500, 2500, 997, dtype=np.float32)
    width, level = PRESETS[name]
    expected = hd.pixels.apply_voi_window(values, level, width)
    result = apply_window(values, width, level)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
    assert values[0] == -1500  # a copy was scaled


def test_percentiles_of_the_finite_foreground() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.full(5000, -1000), rng.normal(50, 20, 4000)]).astype(np.float32)
    expected = np.percentile(values[values > -1000].astype(np.float64), [2, 90])
    with_holes = np.concatenate([values, np.full(300, np.nan), [np.inf, -np.inf]]).astype(np.float32)
    for array in (values, with_holes, with_holes[::-1].copy()):
        np.testing.assert_allclose(percentile_limits(torch.from_numpy(array), 2, 90), expected, rtol=1e-5)


def test_percentiles_of_few_values() -> None:
    assert percentile_limits(torch.full((3, 4), 7.0)) == (7, 7)
    assert percentile_limits(torch.tensor([0.0, 0, 0, 40])) == (0, 40)
    assert percentile_limits(torch.tensor([float("nan"), 3])) == (3, 3)
    with pytest.raises(ValueError, match="All voxels"):
        percentile_limits(torch.full((3,), float("nan")))


def test_percentiles_of_many_values_are_sampled() -> None:
    values = torch.arange(20_000_000, dtype=torch.float32).reshape(1000, -1)
    low, high = percentile_limits(values, 10, 60)
    assert abs(low - 2_000_000) < 20
    assert abs(high - 12_000_000) < 20
    values.zero_()[517, 4] = 9  # a value that the sample may miss
    assert percentile_limits(values) == (0, 9)


def test_scale_in_place() -> None:
    values = torch.tensor([-5.0, 0, 5, 10, 20])
    assert scale_(values, 0, 10) is values
    assert values.tolist() == [0, 0, 0.5, 1, 1]


def test_a_window_of_width_1_is_a_step() -> None:
    np.testing.assert_array_equal(apply_window(np.array([-2.0, -1.0, -0.5, 0.0, 1.0]), 1, 0), [0, 0, 0, 1, 1])


def test_nan_stays() -> None:
    assert apply_window(torch.tensor([float("nan"), 0.0]), 400, 40).isnan().tolist() == [True, False]


def z_scored() -> np.ndarray:
    inside = tissue()[HEAD]
    return (tissue() - inside.mean()) / inside.std()


def test_zero_around_a_z_scored_head_is_black() -> None:
    """What MONAI's NormalizeIntensity(nonzero=True) leaves."""
    z = z_scored()
    around_zero, choice = scaled(np.where(HEAD, z, 0))
    at_minimum, plain = scaled(np.where(HEAD, z, z[HEAD].min()))
    assert (around_zero[~HEAD] == 0).all()
    np.testing.assert_allclose(around_zero[HEAD], at_minimum[HEAD], atol=0.005)
    assert len(choice.warnings) == 1
    assert plain.warnings == ()
    expected = np.percentile(z[HEAD].astype(np.float64), [0.5, 99.5])
    np.testing.assert_allclose([choice.low, choice.high], expected, atol=0.01)


def test_tissue_that_has_the_backgrounds_value_by_chance_stays() -> None:
    """Rounded z-scores: of tissue's zeros only those turn black that hang together with the border."""
    z = z_scored().round(2)
    result, _ = scaled(np.where(HEAD, z, 0))
    zeros = HEAD & (z == 0)
    assert zeros.sum() > 30
    assert (result[zeros] > 0.3).mean() > 0.8
    assert (result[~HEAD] == 0).all()


@pytest.mark.parametrize("shape", ["cylinder", "ball"])
def test_padding_within_padding_is_black_and_tissue_keeps_its_contrast(shape: str) -> None:
    """Both levels far below the tissue; the inner one touches no face of the volume when it is a ball."""
    field = RADIUS < 1.2 if shape == "cylinder" else np.hypot(RADIUS / 1.2, (Z - 3.5) / 3.4) < 1
    head = HEAD if shape == "cylinder" else np.hypot(RADIUS / 0.9, (Z - 3.5) / 2.9) < 1
    volume = np.where(head, tissue().round(), np.where(field, -9996, -10000))
    result, choice = scaled(volume)
    assert (result[~head] == 0).all()
    expected = np.percentile(volume[head].astype(np.float64), [0.5, 99.5])
    np.testing.assert_allclose([choice.low, choice.high], expected, rtol=0.02)
    assert np.ptp(result[head]) > 0.95


def test_padding_far_above_is_black() -> None:
    result, choice = scaled(np.where(HEAD, tissue(), 32767))
    assert (result[~HEAD] == 0).all()
    assert np.ptp(result[HEAD]) > 0.95
    assert "shown black" in choice.warnings[0]


def test_bright_surround_of_tissue_range_stays_white() -> None:
    result, choice = scaled(np.where(HEAD, tissue(), 700))
    assert (result[~HEAD] == 1).all()
    assert choice.warnings == ()
    assert choice.high == pytest.approx(np.percentile(tissue()[HEAD], 99.5), rel=0.01)


def test_limits_of_a_part_come_from_the_sample() -> None:
    whole = torch.from_numpy(np.where(HEAD, tissue(), 0).astype(np.float32))
    part = whole[..., :2].clone()
    choice = scale_by_percentiles_(part, choose_preset("MR"), sample=whole)
    alone = whole.clone()
    assert choice == scale_by_percentiles_(alone, choose_preset("MR"))
    torch.testing.assert_close(part, alone[..., :2])
