# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_anomalyclip.experiments.baselines import window_harmonic_mean, window_patches


@pytest.mark.parametrize(("rows", "columns", "scale"), [(3, 3, 2), (6, 6, 3), (4, 7, 2), (5, 3, 3), (3, 4, 1)])
def test_windows_by_brute_force(rows: int, columns: int, scale: int) -> None:
    expected = []
    for top in range(rows - scale + 1):
        for left in range(columns - scale + 1):
            covered = torch.zeros(rows, columns, dtype=torch.bool)
            covered[top : top + scale, left : left + scale] = True
            expected.append(covered.flatten().nonzero().flatten().tolist())
    assert window_patches(rows, columns, scale).tolist() == expected


def test_published_example() -> None:
    """The example in the documentation of anomalib's WinCLIP."""
    assert window_patches(3, 3, 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    mean = window_harmonic_mean(torch.tensor([[[[1.0, 0.75], [0.5, 0.25]]]]), 2)
    expected = torch.tensor([[1.0, 0.8571, 0.75], [0.6667, 0.48, 0.375], [0.5, 0.3333, 0.25]])
    torch.testing.assert_close(mean[0, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns", "scale"), [(6, 6, 2), (6, 6, 3), (4, 7, 3), (3, 3, 3), (2, 5, 1)])
def test_harmonic_mean_by_brute_force(rows: int, columns: int, scale: int) -> None:
    scores = torch.rand(2, 1, rows - scale + 1, columns - scale + 1, dtype=torch.float64) + 1e-6
    windows = window_patches(rows, columns, scale).tolist()
    computed = window_harmonic_mean(scores, scale)
    for item in range(2):
        for number in range(rows * columns):
            covering = [
                float(score) for window, score in zip(windows, scores[item].flatten(), strict=True) if number in window
            ]
            expected = len(covering) / sum(1 / score for score in covering)
            assert float(computed[item, 0, number // columns, number % columns]) == pytest.approx(expected, rel=1e-12)


def test_window_of_score_zero_gives_zero_and_not_nan() -> None:
    scores = torch.ones(1, 1, 2, 2)
    scores[0, 0, 0, 0] = 0
    assert window_harmonic_mean(scores, 2)[0, 0].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("scale", [0, 4])
def test_windows_that_do_not_fit(scale: int) -> None:
    with pytest.raises(ValueError, match=f"Windows of {scale} x {scale} patches do not fit a grid of 3 x 5 patches"):
        window_patches(3, 5, scale)
