# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_anomalyclip.experiments.baselines import WinCLIP, ensemble_prompts, window_harmonic_mean, window_patches
from monai_anomalyclip.networks import Backbone

Make = Callable[..., Any]


@torch.no_grad()
def test_map_and_score_equal_the_oracle(
    make: Make, backbone: Backbone, image: Tensor, wide_image: Tensor, plain: ModuleType
) -> None:
    weights = backbone.clip.state_dict()
    network = make(WinCLIP, class_name="brain", unit_sentences=True)
    text = plain.ensemble_text(weights, *ensemble_prompts("winclip", "brain"))
    for pixels in (image, wide_image):
        predicted = network.predict(pixels)
        score = plain.abnormal_probability(plain.image_feature(weights, pixels), text, 0.07)
        torch.testing.assert_close(predicted["anomaly_score"], score)
        torch.testing.assert_close(predicted["anomaly_map"], plain.winclip_map(weights, pixels, text, 0.07))


@torch.no_grad()
def test_other_scales(make: Make, backbone: Backbone, wide_image: Tensor, plain: ModuleType) -> None:
    weights = backbone.clip.state_dict()
    network = make(WinCLIP, scales=(1,), temperature=0.03, unit_sentences=True)
    text = plain.ensemble_text(weights, *ensemble_prompts("winclip", "object"))
    torch.testing.assert_close(network(wide_image), plain.winclip_map(weights, wide_image, text, 0.03, scales=(1,)))


@pytest.mark.parametrize("window_batch_size", [1, 7, 50])
@torch.no_grad()
def test_window_batch_changes_nothing(window_batch_size: int, make: Make, image: Tensor) -> None:
    expected = make(WinCLIP)(image)
    torch.testing.assert_close(make(WinCLIP, window_batch_size=window_batch_size)(image), expected)


@torch.no_grad()
def test_most_windows_at_once(make: Make, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(WinCLIP, window_batch_size=8)
    seen: list[tuple[int, ...]] = []
    network.clip.visual.transformer.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    network(image)
    network.clip.visual.transformer._forward_hooks.clear()
    assert sum(shape[0] for shape in seen if shape[1] == 5) == 2 * 25
    assert sum(shape[0] for shape in seen if shape[1] == 10) == 2 * 16
    assert max(shape[0] for shape in seen) == 8


@torch.no_grad()
def test_patches_are_embedded_once(make: Make, image: Tensor) -> None:
    network = make(WinCLIP)
    seen: list[int] = []
    hook = network.clip.visual.conv1.register_forward_hook(lambda *_: seen.append(1))
    network(image)
    hook.remove()
    assert seen == [1]


@torch.no_grad()
def test_logits_of_features_alone(make: Make, image: Tensor) -> None:
    network = make(WinCLIP)
    logits = network.logits(*network.encode_image(image))
    assert [tuple(layer.shape) for layer in logits["patch_logits"]] == [(2, 2, 5, 5), (2, 2, 4, 4)]
    for layer, other in zip(logits["patch_logits"], network(image, output="logits")["patch_logits"], strict=True):
        torch.testing.assert_close(layer, other)
    with pytest.raises(ValueError, match="25 windows do not form a grid of 5 x 4"):
        network.logits(*network.encode_image(image), grid=(6, 5))


def test_nothing_is_learned(make: Make) -> None:
    assert make(WinCLIP).state_dict() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": ()}, "must be one or more sides of windows"),
        ({"scales": (2, 7)}, "Windows of 7 x 7 patches do not fit a grid of 6 x 6"),
        ({"window_batch_size": 0}, "window_batch_size=0 must be at least 1"),
        ({"class_name": ""}, "must be a word"),
        ({"ensemble": "winclip_23"}, "is not one of single, imagenet, winclip, winclip_21, vand"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(ValueError, match=message):
        make(WinCLIP, **settings)


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
