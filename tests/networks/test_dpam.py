# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from monai_anomalyclip.networks import AnomalyCLIP, DualPathVision
from monai_anomalyclip.networks.dpam import parse_dpam_attention

NetFactory = Callable[..., AnomalyCLIP]


def state_hash(clip: CLIP) -> str:
    digest = hashlib.sha256()
    for key, value in clip.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).norm() / expected.norm() < relative


@pytest.mark.parametrize(
    ("attention", "start", "taps", "size"),
    [
        ("vv", 5, (3, 6, 9, 12), (84, 84)),
        ("qq", 5, (3, 6, 9, 12), (84, 84)),
        ("kk", 5, (3, 6, 9, 12), (84, 84)),
        ("qk", 5, (3, 6, 9, 12), (84, 84)),
        ("qq+kk+vv", 5, (3, 6, 9, 12), (84, 84)),
        ("qk+qq+kk+vv", 5, (3, 6, 9, 12), (84, 84)),
        ("vv", 1, (3, 12), (84, 84)),  # the second path starts before every tap
        ("vv", 12, (12,), (84, 84)),  # one block of it
        ("vv", 10, (3, 6, 9), (84, 84)),  # it starts after every tap
        ("qk+vv", 12, (3, 6), (56, 56)),
        ("vv", 5, (12,), (56, 56)),  # the trained size: positions as they are
        ("vv", 5, (1, 7), (56, 84)),  # not square
        ("qk+kk", 5, (6, 12), (84, 28)),
        ("qk", 6, (12,), (28, 112)),  # as many patches as trained, on another grid
        ("vv", 6, (4, 12), (14, 14)),  # a single patch
    ],
)
@torch.no_grad()
def test_features_equal_the_oracle(
    make_net: NetFactory,
    plain: ModuleType,
    attention: str,
    start: int,
    taps: tuple[int, ...],
    size: tuple[int, int],
) -> None:
    net = make_net(dpam_attention=attention, dpam_start=start, feature_layers=taps)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    global_features, patch_features = net.encode_image(image)
    assert len(patch_features) == len(taps)
    kinds = attention.split("+")
    for index, kind in enumerate(kinds):
        expected_global, expected = plain.vision(
            net.clip.state_dict(), image, taps=taps, dpam_start=start, kind=kind, head_width=64
        )
        assert_close(global_features, expected_global)
        for features, target in zip(patch_features, expected, strict=True):
            assert_close(features if len(kinds) == 1 else features[:, index], target)


@torch.no_grad()
def test_sizes_in_any_order_change_nothing(make_net: NetFactory) -> None:
    net = make_net()
    before = state_hash(net.clip)
    images = {
        size: torch.randn(1, 3, *size, dtype=torch.float64) for size in ((84, 84), (56, 56), (112, 112), (56, 84))
    }
    first = {size: make_net().encode_image(image) for size, image in images.items()}
    for size in ((84, 84), (56, 56), (112, 112), (84, 84), (56, 84), (56, 56), (84, 84)):
        global_features, patch_features = net.encode_image(images[size])
        assert torch.equal(global_features, first[size][0])
        assert all(torch.equal(a, b) for a, b in zip(patch_features, first[size][1], strict=True))
    assert state_hash(net.clip) == before
    assert not net.clip.training


@torch.no_grad()
def test_more_sizes_than_are_kept(make_net: NetFactory, plain: ModuleType) -> None:
    net = make_net(feature_layers=(1,), dpam_start=1)
    images = [torch.randn(1, 3, 14 * side, 28, dtype=torch.float64) for side in range(1, 13)]
    for image in [*images, *images]:
        expected, _ = plain.vision(net.clip.state_dict(), image, taps=(1,), dpam_start=1)
        assert_close(net.encode_image(image)[0], expected)
    assert len(net._vision._positions) <= 8


def test_size_first_seen_in_inference_mode_can_record_gradients_later(make_net: NetFactory) -> None:
    net = make_net()
    image = torch.randn(1, 3, 84, 84, dtype=torch.float64)
    with torch.inference_mode():
        expected = net.encode_image(image)[0].clone()
    image.requires_grad_()
    global_features, _ = net.encode_image(image)
    global_features.sum().backward()
    assert torch.equal(global_features.detach(), expected)
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_tower_in_training_gets_gradients_through_resized_positions(small_config: dict[str, Any]) -> None:
    visual = CLIP(**small_config).visual
    vision = DualPathVision((2,), 1, ("vv",))
    for _ in range(2):  # the graph of the first call must not be reused
        _, (features,) = vision(visual, torch.randn(1, 3, 42, 42))
        features.square().sum().backward()
    assert visual.positional_embedding.grad is not None
    assert (visual.positional_embedding.grad != 0).all(dim=1).all()


@torch.no_grad()
def test_residual_stream_keeps_its_precision_under_autocast(make_net: NetFactory) -> None:
    net = make_net(torch.float32)
    seen: list[torch.dtype] = []
    hooks = [
        block.ln_1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
        for block in net.clip.visual.transformer.resblocks
    ]
    with torch.autocast("cpu", torch.bfloat16):
        net.encode_image(torch.randn(1, 3, 84, 84))
    for hook in hooks:
        hook.remove()
    assert seen == [torch.float32] * 12


def test_channels_and_size_are_checked(make_net: NetFactory) -> None:
    net = make_net()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(1, 1, 84, 84\)"):
        net.encode_image(torch.zeros(1, 1, 84, 84))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(3, 84, 84\)"):
        net.encode_image(torch.zeros(3, 84, 84))
    with pytest.raises(ValueError, match="84 x 85 must be a positive multiple of the patch size 14"):
        net.encode_image(torch.zeros(1, 3, 84, 85))
    with pytest.raises(ValueError, match="0 x 84 must be a positive multiple"):
        net.encode_image(torch.zeros(1, 3, 0, 84))


@pytest.mark.parametrize("name", ["", "xx", "VV", "vv+vv", "vv+", "vv kk"])
def test_unknown_attention_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="dpam_attention='") as error:
        parse_dpam_attention(name)
    assert f"'{name}'" in str(error.value)


def test_attention_names() -> None:
    assert parse_dpam_attention("vv") == ("vv",)
    assert parse_dpam_attention("qk+qq+kk+vv") == ("qk", "qq", "kk", "vv")
