# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Frozen matrices are rounded once, not at each use, and QuickGELU is one kernel."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from monai_anomalyclip.networks import AnomalyCLIP, dpam
from monai_anomalyclip.networks.dpam import mlp

BLOCKS = 12


@pytest.fixture(scope="module")
def network() -> AnomalyCLIP:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        return AnomalyCLIP("ViT-B-16-quickgelu", None, image_size=64, feature_layers=(12,), deep_prompt_depth=3).eval()


class Casts(TorchDispatchMode):
    """Shapes of the tensors that were brought into another type, and how often each operator ran."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.kernels: dict[str, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        self.kernels[name] = self.kernels.get(name, 0) + 1
        if name == "aten::_to_copy":
            self.shapes.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


def features(network: AnomalyCLIP, images: Tensor) -> list[Tensor]:
    whole, (patches,) = network.encode_image(images)
    return [whole.float(), patches.float()]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_weight_is_cast_in_a_pass(network: AnomalyCLIP, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype):
        first = features(network, images)
        with Casts() as ours:
            again = features(network, images)
        monkeypatch.setattr("monai_anomalyclip.networks.frozen_clip.compute_tower", lambda visual: visual)
        with Casts() as plain:
            unfolded = features(network, images)
    weights = {tuple(parameter.shape) for parameter in network.clip.visual.parameters()}
    assert len([shape for shape in plain.shapes if shape in weights]) > 8 * BLOCKS
    assert not [shape for shape in ours.shapes if shape in weights]
    # What is left are the activations: of each block both norms' outputs, and the ends.
    assert len(ours.shapes) <= 2 * BLOCKS + 6
    assert ours.kernels["aten::silu_"] == BLOCKS
    assert "aten::sigmoid_" not in ours.kernels
    exact = features(network, images)
    for one, same, other, right in zip(first, again, unfolded, exact, strict=True):
        assert torch.equal(one, same)
        rounding = (other - right).norm()
        assert 0 < (one - right).norm() < 1.3 * rounding  # no worse than autocast by itself
        assert (one - other).norm() < 1.5 * rounding


@torch.no_grad()
def test_the_folded_block_is_the_block(network: AnomalyCLIP) -> None:
    """In float32 the two differ by rounding alone: by factors as they are, and by nothing else."""
    visual = network.clip.visual
    block = dpam._copied(visual, torch.float32).transformer.resblocks[3]
    tokens = torch.randn(2, 17, 768)
    torch.testing.assert_close(mlp(block, tokens), mlp(visual.transformer.resblocks[3], tokens), rtol=1e-5, atol=1e-5)
    second = (block.mlp.c_proj.weight * 1.702, visual.transformer.resblocks[3].mlp.c_proj.weight)
    torch.testing.assert_close(*second)


def test_nothing_else_is_copied_and_nothing_is_changed(network: AnomalyCLIP) -> None:
    visual = network.clip.visual
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    assert dpam.compute_tower(visual) is visual  # without autocast: float32 to the last bit
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        made = dpam.compute_tower(visual)
        assert made is not visual
        assert dpam.compute_tower(copy.deepcopy(network).clip.visual) is made  # deep copies share it, too
        network.predict(torch.randn(1, 3, 64, 64))
        assert {parameter.dtype for parameter in network.prompts.parameters()} == {torch.float32}
        assert network.encode_prompts().dtype == torch.float32
    assert all(torch.equal(value, before[name]) for name, value in visual.state_dict().items())
    kept = {name: value.dtype for name, value in made.named_parameters()}
    theirs = dict(visual.named_parameters())
    for name, parameter in made.named_parameters():
        if ".ln_" in name or name.startswith("ln_") or name.endswith("embedding"):
            assert parameter is theirs[name]
        else:
            assert kept[name] == torch.bfloat16
            assert not parameter.requires_grad
            assert not parameter.is_inference()
    assert set(kept) == set(theirs)


def test_it_is_made_anew_when_the_tower_changes_and_goes_with_it(network: AnomalyCLIP) -> None:
    visual = copy.deepcopy(network.clip.visual)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        first = dpam.compute_tower(visual)
        assert dpam.compute_tower(visual) is first
        visual.proj.mul_(2)
        second = dpam.compute_tower(visual)
        torch.testing.assert_close(second.proj.float(), first.proj.float() * 2)
        visual.proj.requires_grad_()
        assert dpam.compute_tower(visual) is visual  # in training its gradients are wanted
    gc.collect()  # towers of other tests
    count = len(dpam._made)
    del visual, first, second
    gc.collect()
    assert len(dpam._made) == count - 1
