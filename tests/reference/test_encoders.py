# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_anomalyclip.reference import EncoderIdentity, PatchEncoder, join_stages
from monai_anomalyclip.reference.encoders import tensors_digest

Make = Callable[..., PatchEncoder]


@pytest.mark.parametrize("size", [(32, 32), (20, 90), (1, 1)])
def test_images_of_any_size_have_the_same_grid(small_encoder: PatchEncoder, size: tuple[int, int]) -> None:
    assert small_encoder(torch.rand(3, 3, *size)).shape == (3, 16, 14)


def test_it_sees_the_normalised_square(small_encoder: PatchEncoder) -> None:
    square = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = small_encoder.stages((square - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    for found, wanted in zip(small_encoder.feature_maps(square), by_hand, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)


def test_gray_is_colour_of_three_equal_channels(small_encoder: PatchEncoder) -> None:
    gray = torch.rand(2, 1, 32, 32)
    assert torch.allclose(small_encoder(gray), small_encoder(gray.expand(-1, 3, -1, -1)))


def test_it_stays_frozen(small_encoder: PatchEncoder) -> None:
    assert not small_encoder.train().training
    assert not any(parameter.requires_grad for parameter in small_encoder.parameters())
    assert not small_encoder(torch.rand(1, 3, 32, 32)).requires_grad


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 32, 32), r"Expected images \(B, 3, H, W\)"),
        (torch.rand(1, 2, 32, 32), r"got shape \(1, 2, 32, 32\)"),
        (torch.full((1, 3, 8, 8), torch.nan), "NaN or infinite"),
        (torch.full((1, 3, 8, 8), 255.0), r"must lie in \[0, 1\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "must be float"),
        (torch.rand(0, 3, 8, 8), "Expected images"),
    ],
)
def test_odd_images_are_refused(small_encoder: PatchEncoder, image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_encoder(image)


@pytest.mark.parametrize(("setting", "value"), [("image_size", 31), ("grid", 0), ("grid", 65)])
def test_settings_out_of_range(make_small_encoder: Make, setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{setting}={value}"):
        make_small_encoder(**{setting: value})


def test_the_digest_is_that_of_shapes_and_values() -> None:
    tensor = torch.tensor([[1.0, 2.0]])
    wanted = hashlib.sha256(b"torch.float32(1, 2)" + tensor.numpy().tobytes()).hexdigest()
    assert tensors_digest([tensor]) == wanted
    assert tensors_digest([tensor.half()]) == wanted  # the same values
    assert tensors_digest([tensor.T]) != wanted
    assert tensors_digest([tensor + 1e-6]) != wanted


def test_identity_follows_weights_and_settings(make_small_encoder: Make) -> None:
    own = make_small_encoder().identity
    assert own.difference(make_small_encoder().identity) == ""
    assert "digest" in own.difference(make_small_encoder(seed=1).identity)
    assert own.difference(make_small_encoder(grid=5).identity) == "it was made with grid=4, not 5"
    assert "normalise=True, not False" in own.difference(make_small_encoder(normalise=False).identity)
    assert own.difference(replace(own, name="other")) == "it was made with the encoder small, not other"


def test_identity_survives_json(make_small_encoder: Make) -> None:
    own = make_small_encoder(settings={"stages": (1, 2)}).identity
    assert own.difference(EncoderIdentity.from_json(own.to_json())) == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "settings": {}, "digest": ""}', '{"name": "a"}'])
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="No encoder is described"):
        EncoderIdentity.from_json(text)


def test_one_stage_is_the_mean_over_its_neighbours_at_unit_length() -> None:
    stage = torch.rand(2, 5, 6, 6)
    features = join_stages([stage], (6, 6))
    assert features.shape == (2, 36, 5)
    inside = stage[1, :, 1:4, 2:5].mean((1, 2))  # around row 2, column 3
    assert torch.allclose(features[1, 2 * 6 + 3], inside / inside.norm(), atol=1e-6)
    corner = stage[0, :, :2, :2].mean((1, 2))  # nothing is added beyond the border
    assert torch.allclose(features[0, 0], corner / corner.norm(), atol=1e-6)


def test_raw_features_keep_their_length() -> None:
    stage = torch.rand(1, 3, 7, 7)
    sums = np.stack([ndimage.uniform_filter(c, 3, mode="constant") * 9 for c in stage[0].numpy()])
    counts = ndimage.uniform_filter(np.ones((7, 7)), 3, mode="constant") * 9
    found = join_stages([stage], (7, 7), normalise=False)[0].T.reshape(3, 7, 7).numpy()
    assert found == pytest.approx(sums / counts, abs=1e-5)


def test_stages_lie_side_by_side_and_weigh_the_same() -> None:
    stages = [1000 * torch.rand(1, 4, 8, 8), 0.001 * torch.rand(1, 7, 2, 2)]
    features = join_stages(stages, (4, 4))
    assert features.shape == (1, 16, 11)
    lengths = torch.stack([features[..., :4].norm(dim=-1), features[..., 4:].norm(dim=-1)])
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


def test_a_constant_map_is_constant_on_every_grid() -> None:
    features = join_stages([torch.full((1, 2, 9, 9), 3.0)], (5, 5), normalise=False)
    assert torch.allclose(features, torch.full((1, 25, 2), 3.0), atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    stage = torch.rand(1, 2, 4, 4)
    stage[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        join_stages([stage], (4, 4), normalise=False)
