# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor

from monai_anomalyclip.experiments.baselines import VAND, PlainCLIP, VANDLoss, ensemble_prompts, read_adapters
from monai_anomalyclip.losses import Logits
from monai_anomalyclip.networks import Backbone

Make = Callable[..., Any]


def linear(network: VAND) -> list[tuple[Tensor, Tensor]]:
    return [(adapter.weight.detach(), adapter.bias.detach()) for adapter in network.adapters]


@torch.no_grad()
def test_map_and_score_equal_the_oracle(
    make: Make, backbone: Backbone, image: Tensor, wide_image: Tensor, plain: ModuleType
) -> None:
    weights = backbone.clip.state_dict()
    network = make(VAND, class_name="brain")
    text = plain.ensemble_text(weights, *ensemble_prompts("vand", "brain"))
    for pixels in (image, wide_image):
        predicted = network.predict(pixels)
        score = plain.abnormal_probability(plain.image_feature(weights, pixels), text, 0.01)
        torch.testing.assert_close(predicted["anomaly_score"], score)
        maps = plain.vand_layer_maps(weights, pixels, text, (3, 6, 9, 12), linear(network), 0.01)
        torch.testing.assert_close(predicted["anomaly_map"], sum(m[:, 1:] for m in maps) / 4)


def test_gradients_of_the_loss_equal_the_oracle(
    make: Make, backbone: Backbone, image: Tensor, plain: ModuleType, reference: dict[str, np.ndarray]
) -> None:
    network = make(VAND, temperature=0.07)
    mask = torch.from_numpy(reference["mask"][:2]).double()
    mask[1, 20:40, 30:60] = 1
    loss = VANDLoss()
    value = loss(network(image, output="logits"), {"image_label": torch.tensor([0, 1]), "label": mask[:, None]})
    value.backward()
    copies = [[part.clone().requires_grad_() for part in layer] for layer in linear(network)]
    weights = backbone.clip.state_dict()
    text = plain.ensemble_text(weights, *ensemble_prompts("vand", "object"))
    expected = plain.vand_loss(plain.vand_layer_maps(weights, image, text, (3, 6, 9, 12), copies, 0.07), mask)
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    for adapter, (weight, bias) in zip(network.adapters, copies, strict=True):
        torch.testing.assert_close(adapter.weight.grad, weight.grad, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(adapter.bias.grad, bias.grad, rtol=1e-7, atol=1e-9)
    assert all(parameter.grad is None for parameter in network.clip.parameters())


@pytest.mark.parametrize(("layers", "taps"), [(12, [3, 6, 9, 12]), (4, [1, 2, 3, 4]), (6, [2, 3, 5, 6]), (2, [1, 2])])
def test_quarters_of_the_tower(layers: int, taps: list[int], small_config: dict[str, Any]) -> None:
    config = {**small_config, "vision_cfg": {**small_config["vision_cfg"], "layers": layers}}
    with pytest.warns(UserWarning, match="random weights"):
        network = VAND(config, None, image_size=28)
    assert network.settings["feature_layers"] == taps
    assert sorted(network.state_dict()) == sorted(
        f"adapters.{index}.{part}" for index in range(len(taps)) for part in ("weight", "bias")
    )


def test_cached_features_give_the_same_logits(make: Make, image: Tensor) -> None:
    network = make(VAND)
    global_features, patch_features = network.encode_image(image)
    cached = {"global_features": global_features, "patch_features": torch.stack(patch_features, dim=1)}
    ours, theirs = network(cached, output="logits"), network(image, output="logits")
    for layer, other in zip(ours["patch_logits"], theirs["patch_logits"], strict=True):
        torch.testing.assert_close(layer, other)


def test_width_of_the_patch_features(make: Make, image: Tensor) -> None:
    for method in (VAND, PlainCLIP):
        network = make(method)
        assert network.patch_feature_width == network.encode_image(image)[1][0].shape[-1]


def test_layers_survive_the_disk(make: Make, tmp_path: Path) -> None:
    first, second = make(VAND), make(VAND)
    first.save_prompts(tmp_path / "vand.pt")
    second.load_prompts(tmp_path / "vand.pt")
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        first.save_prompts(tmp_path / "vand.pt")
    with pytest.raises(ValueError, match=r"written as \.pt"):
        first.save_prompts(tmp_path / "vand.safetensors")


def test_published_layout(make: Make, image: Tensor, tmp_path: Path) -> None:
    network = make(VAND)
    published = {
        f"fc.{index}.{part}": getattr(adapter, part).detach()
        for index, adapter in enumerate(network.adapters)
        for part in ("weight", "bias")
    }
    torch.save({"trainable_linearlayer": published}, tmp_path / "visa_pretrained.pth")
    torch.save({"model": network.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")  # of a tuning run
    same = make(VAND)
    same.load_prompts(tmp_path / "checkpoint.pt")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in same.state_dict().items())
    other = make(VAND)
    with pytest.warns(UserWarning, match="released belong to published_backbone=True"):
        other.load_prompts(tmp_path / "visa_pretrained.pth")
    torch.testing.assert_close(other(image), network(image))


def test_layers_of_another_network_are_refused(make: Make, tmp_path: Path) -> None:
    network = make(VAND)
    make(VAND, feature_layers=(6, 12)).save_prompts(tmp_path / "two.pt")
    with pytest.raises(ValueError, match=r"holds 2 linear layers with weights \(64, 128\), this network needs 4"):
        network.load_prompts(tmp_path / "two.pt")
    make(VAND, feature_layers=(2, 6, 9, 12)).save_prompts(tmp_path / "others.pt")
    with pytest.raises(ValueError, match=r"tuned on the blocks \[2, 6, 9, 12\], this network taps \[3, 6, 9, 12\]"):
        network.load_prompts(tmp_path / "others.pt")
    network.backbone_sha256 = "1" * 64
    network.save_prompts(tmp_path / "backbone.pt")
    other = make(VAND)
    with pytest.raises(ValueError, match="were tuned with the CLIP"):
        other.load_prompts(tmp_path / "backbone.pt")
    other.load_prompts(tmp_path / "backbone.pt", check_backbone=False)
    assert torch.equal(other.adapters[0].weight, network.adapters[0].weight)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_clip_as_the_published_code_runs_it(small_config: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    own = VAND(small_config, None, image_size=42)
    torch.manual_seed(3)
    published = VAND(small_config, None, image_size=42, published_backbone=True)
    clip = published.clip
    activations = {type(block.mlp.gelu) for block in (*clip.visual.transformer.resblocks, *clip.transformer.resblocks)}
    assert activations == {torch.nn.GELU}
    # Positions as open_clip resizes them when it loads weights of a smaller image.
    larger = {**small_config, "vision_cfg": {**small_config["vision_cfg"], "image_size": 42}}
    state = clip.state_dict()
    resize_pos_embed(state, open_clip.model.CLIP(**larger))
    ours = published._vision._position_embedding(clip.visual, (3, 3))
    torch.testing.assert_close(ours, state["visual.positional_embedding"])
    assert not torch.allclose(own._vision._position_embedding(own.clip.visual, (3, 3)), ours)
    assert own.feature_settings != published.feature_settings  # cached features are not shared
    published.save_prompts(tmp_path / "published.pt")
    with pytest.raises(ValueError, match="tuned with published_backbone=True"):
        own.load_prompts(tmp_path / "published.pt")


def test_files_that_hold_no_layers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There are no linear layers of VAND at"):
        read_adapters(tmp_path / "absent.pt")
    (tmp_path / "damaged.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="cannot be read safely"):
        read_adapters(tmp_path / "damaged.pt")
    torch.save({"prompts.context_normal": torch.zeros(1)}, tmp_path / "prompts.pt")
    with pytest.raises(ValueError, match="holds no linear layers of VAND"):
        read_adapters(tmp_path / "prompts.pt")
    torch.save({"adapters.0.weight": torch.full((2, 2), float("nan"))}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match="not all tensors of finite values"):
        read_adapters(tmp_path / "nan.pt")


def random_logits(layers: int = 2) -> Logits:
    patch_logits = [torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(layers)]
    return {"image_logits": torch.zeros(3, 2, dtype=torch.float64), "patch_logits": patch_logits}


@pytest.fixture
def target() -> dict[str, Tensor]:
    label = (torch.rand(3, 1, 12, 10) > 0.7).long()
    label[0] = 0
    return {"image_label": torch.tensor([0, 1, 1]), "label": label}


def test_value_equals_the_published_formula(target: dict[str, Tensor], plain: ModuleType) -> None:
    logits, loss = random_logits(), VANDLoss()
    maps = [plain.corner_bilinear(layer, 12, 10).softmax(1) for layer in logits["patch_logits"]]
    mask = target["label"][:, 0].double()
    value = loss(logits, target)
    torch.testing.assert_close(value, plain.vand_loss(maps, mask), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.last_terms["dice_abnormal"], plain.pieces.loss_dice([m[:, 1] for m in maps], mask))
    torch.testing.assert_close(loss.last_terms["focal"], plain.pieces.loss_focal(maps, mask), rtol=1e-12, atol=0)
    assert float(loss.last_terms["total"]) == float(value)


def test_images_of_unknown_mask_add_nothing(target: dict[str, Tensor]) -> None:
    logits = random_logits(layers=1)
    target["label"][2] = 0  # anomalous without a mask
    value = VANDLoss()(logits, target)
    value.backward()
    gradient = logits["patch_logits"][0].grad
    assert gradient is not None
    assert float(gradient[2].abs().max()) == 0
    known: Logits = {
        "image_logits": logits["image_logits"][:2],
        "patch_logits": [logits["patch_logits"][0].detach()[:2]],
    }
    alone = VANDLoss()(known, {key: value[:2] for key, value in target.items()})
    torch.testing.assert_close(value.detach(), alone)
    marked = VANDLoss()(logits, {**target, "has_label": torch.tensor([1, 1, 0])})
    torch.testing.assert_close(marked, value)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="For 3 images the targets must be"):
        VANDLoss()(random_logits(), {"image_label": torch.zeros(3), "label": torch.zeros(3, 12, 10)})
