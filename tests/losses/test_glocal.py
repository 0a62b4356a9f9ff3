# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from monai_anomalyclip.losses import GlocalLoss, Logits
from monai_anomalyclip.losses.glocal import published_focal
from monai_anomalyclip.networks import AnomalyCLIP


@pytest.fixture
def tiny_net(tiny_config: dict[str, Any], data_dir: Any) -> AnomalyCLIP:
    net = AnomalyCLIP(
        tiny_config["clip"],
        data_dir / "tiny" / "clip_weights_fp16.safetensors",
        image_size=84,
        feature_layers=(3, 6, 9, 12),
        dpam_start=5,
        deep_prompt_depth=5,
    )
    net.load_prompts(data_dir / "tiny" / "prompt_learner.pth")
    return net


def relative(value: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value.detach().numpy() - expected) / np.linalg.norm(expected))


def random_logits(batch: int = 3, layers: int = 2) -> Logits:
    return {
        "image_logits": torch.randn(batch, 2, requires_grad=True),
        "patch_logits": [torch.randn(batch, 2, 4, 4, requires_grad=True) for _ in range(layers)],
    }


def test_published_losses_and_gradients(tiny_net: AnomalyCLIP, reference: dict[str, np.ndarray]) -> None:
    loss = GlocalLoss()
    target = {"image_label": torch.tensor(reference["labels"]), "label": torch.tensor(reference["mask"])[:, None]}
    total = loss(tiny_net.logits(*tiny_net.encode_image(torch.tensor(reference["image"]))), target)
    total.backward()
    for name, term in loss.last_terms.items():
        assert relative(term, reference[f"loss_{name}"]) < 2e-6, name
    assert relative(total, reference["loss_total"]) < 2e-6
    prompts = tiny_net.prompts
    gradients = {
        "grad_ctx_pos": prompts.context_normal,
        "grad_ctx_neg": prompts.context_abnormal,
        **{f"grad_deep_{index}": deep for index, deep in enumerate(prompts.deep_prompts)},
    }
    for name, parameter in gradients.items():
        assert parameter.grad is not None
        assert relative(parameter.grad.reshape(reference[name].shape), reference[name]) < 5e-6, name


def upsampled(grid: list[list[float]], height: int, width: int) -> list[list[float]]:
    """Bilinear, sample points in the middle of the pixels, the border repeated."""

    def at(index: int, size: int, length: int) -> tuple[int, int, float]:
        position = max((index + 0.5) * size / length - 0.5, 0.0)
        low = min(int(position), size - 1)
        return low, min(low + 1, size - 1), position - low

    result = []
    for row in range(height):
        top, bottom, down = at(row, len(grid), height)
        line = []
        for column in range(width):
            left, right, along = at(column, len(grid[0]), width)
            upper = grid[top][left] * (1 - along) + grid[top][right] * along
            lower = grid[bottom][left] * (1 - along) + grid[bottom][right] * along
            line.append(upper * (1 - down) + lower * down)
        result.append(line)
    return result


def by_hand(logits: Logits, target: dict[str, torch.Tensor], known: list[int]) -> dict[str, float]:
    """The loss by number, without a tensor library: published smoothing 1e-5 (focal) and 1 (Dice), gamma 2."""
    terms = {"global": 0.0, "focal": 0.0, "dice_abnormal": 0.0, "dice_normal": 0.0}
    labels, masks = target["image_label"].tolist(), target["label"][:, 0].tolist()
    for pair, label in zip(logits["image_logits"].tolist(), labels, strict=True):
        terms["global"] -= math.log(math.exp(pair[int(label)]) / sum(map(math.exp, pair))) / len(labels)
    for layer in logits["patch_logits"]:
        for image in known:
            mask, (normal, abnormal) = masks[image], layer[image].tolist()
            grid = [
                [math.exp(a) / (math.exp(a) + math.exp(n)) for n, a in zip(*rows, strict=True)]
                for rows in zip(normal, abnormal, strict=True)
            ]
            chance = [p for row in upsampled(grid, len(mask), len(mask[0])) for p in row]
            truth = [value for row in mask for value in row]
            for p, y in zip(chance, truth, strict=True):
                true_class = p if y else 1 - p
                match = (1 - 1e-5) * true_class + 1e-5 * (1 - true_class) + 1e-5
                terms["focal"] -= (1 - match) ** 2 * math.log(match) / len(truth) / len(known)
            for name, guess, wanted in (
                ("dice_abnormal", chance, truth),
                ("dice_normal", [1 - p for p in chance], [1 - y for y in truth]),
            ):
                overlap = sum(g * w for g, w in zip(guess, wanted, strict=True))
                terms[name] += (1 - (2 * overlap + 1) / (sum(guess) + sum(wanted) + 1)) / len(known)
    return terms


@pytest.mark.parametrize("has_label", [[1, 1, 1], [1, 0, 1]])
@pytest.mark.parametrize("size", [(8, 8), (9, 5), (4, 4)])
def test_terms_by_hand_in_double_precision(size: tuple[int, int], has_label: list[int]) -> None:
    logits = random_logits()
    logits = {
        "image_logits": logits["image_logits"].detach().double() * 3,
        "patch_logits": [layer.detach().double() * 3 for layer in logits["patch_logits"]],
    }
    target = {
        "image_label": torch.tensor([1, 1, 0]),
        "label": (torch.rand(3, 1, *size) > 0.6).double() * torch.tensor([1.0, 1, 0])[:, None, None, None],
        "has_label": torch.tensor(has_label),
    }
    loss = GlocalLoss(2.5)
    total = loss(logits, target)
    assert total.dtype == torch.float64
    expected = by_hand(logits, target, [image for image, known in enumerate(has_label) if known])
    for name, value in expected.items():
        assert float(loss.last_terms[name]) == pytest.approx(value, rel=1e-12), name
    pixel = expected["focal"] + expected["dice_abnormal"] + expected["dice_normal"]
    assert float(total) == pytest.approx(expected["global"] + 2.5 * pixel, rel=1e-12)


def test_pixel_terms_and_gradients_are_those_of_monais_losses() -> None:
    """MONAI's focal loss of the published smoothed probability: its own would smooth nothing."""
    logits, label = random_logits(), (torch.rand(3, 1, 24, 20) > 0.7).float()
    loss = GlocalLoss()
    loss(logits, {"image_label": torch.tensor([1, 1, 1]), "label": label}).backward()
    ours = [layer.grad.clone() for layer in logits["patch_logits"] if layer.grad is not None]
    focal = FocalLoss(use_softmax=True, gamma=2.0, to_onehot_y=True, reduction="none")
    dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)
    terms = torch.zeros(3)
    for layer in logits["patch_logits"]:
        layer.grad = None
        shown = torch.nn.functional.interpolate(layer.softmax(1), label.shape[2:], mode="bilinear")
        # MONAI's softmax divides by the sum of the classes: the other class gets what is missing to 1.
        true_class = (shown[:, 1:] * label + shown[:, :1] * (1 - label)) * (1 - 2e-5) + 2e-5
        pair = torch.cat([torch.where(label > 0, 1 - true_class, true_class),
                          torch.where(label > 0, true_class, 1 - true_class)], dim=1)  # fmt: skip
        parts = [focal(pair.log(), label).sum(1).mean(), dice(shown[:, 1:], label), dice(shown[:, :1], 1 - label)]
        terms = terms + torch.stack(parts)
    (4 * terms.sum()).backward()
    expected = [loss.last_terms[name] for name in ("focal", "dice_abnormal", "dice_normal")]
    torch.testing.assert_close(torch.stack(expected), terms.detach(), rtol=1e-6, atol=1e-7)
    for mine, layer in zip(ours, logits["patch_logits"], strict=True):
        torch.testing.assert_close(mine, layer.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chance", [0.0, 1e-7, 0.3, 0.999, 1.0])
def test_focal_is_the_published_one_at_certain_pixels(chance: float) -> None:
    """One-hot target clamped to [1e-5, 1 - 1e-5], 1e-5 added, written out with the scalars of Python."""
    match = (1 - 1e-5) * chance + 1e-5 * (1 - chance) + 1e-5
    value = float(published_focal(torch.tensor(chance, dtype=torch.float64)))
    assert value == pytest.approx(-((1 - match) ** 2) * math.log(match), rel=1e-12, abs=1e-30)


def test_gradients_by_finite_differences() -> None:
    logits = random_logits(batch=2)
    label = (torch.rand(2, 1, 6, 6) > 0.5).double()
    target = {"image_label": torch.tensor([1, 0]), "label": label, "has_label": torch.ones(2)}
    inputs = [logits["image_logits"], *logits["patch_logits"]]
    GlocalLoss()(logits, target).backward()

    def by_hand_total(moved: list[torch.Tensor]) -> float:
        terms = by_hand({"image_logits": moved[0], "patch_logits": moved[1:]}, target, [0, 1])
        return terms["global"] + 4 * (terms["focal"] + terms["dice_abnormal"] + terms["dice_normal"])

    for number, value in enumerate(inputs):
        assert value.grad is not None
        for place in range(0, value.numel(), 7):
            ends = []
            for step in (1e-4, -1e-4):
                moved = [each.detach().double().clone() for each in inputs]
                moved[number].view(-1)[place] += step
                ends.append(by_hand_total(moved))
            slope = (ends[0] - ends[1]) / 2e-4
            assert float(value.grad.flatten()[place]) == pytest.approx(slope, rel=2e-4, abs=2e-6)


def test_lambda_zero_tunes_on_the_image_label_alone() -> None:
    logits, label = random_logits(), torch.ones(3, 1, 8, 8)
    GlocalLoss(0.0)(logits, {"image_label": torch.tensor([1, 0, 1]), "label": label}).backward()
    gradient = logits["image_logits"].grad
    assert gradient is not None
    expected = (logits["image_logits"].detach().softmax(1) - torch.tensor([[0.0, 1], [1, 0], [0, 1]])) / 3
    torch.testing.assert_close(gradient, expected)
    for layer in logits["patch_logits"]:
        assert layer.grad is None or not layer.grad.any()


@pytest.mark.parametrize("scale", [50.0, 1000.0])
def test_certain_predictions_stay_finite(scale: float) -> None:
    """At temperature 0.07 logits reach 14; right or wrong, nothing may overflow."""
    label = torch.zeros(2, 1, 4, 4)
    label[:, :, :2] = 1
    sign = torch.tensor([1.0, -1])[:, None, None, None]  # right in the first image, wrong in the second
    patch = (torch.cat([-(2 * label - 1), 2 * label - 1], dim=1) * sign * scale).requires_grad_()
    image = torch.tensor([[-scale, scale], [scale, -scale]], requires_grad=True)
    loss = GlocalLoss()
    target = {"image_label": torch.tensor([1, 1]), "label": label}
    loss({"image_logits": image, "patch_logits": [patch]}, target).backward()
    assert all(torch.isfinite(term) for term in loss.last_terms.values())
    assert patch.grad is not None
    assert torch.isfinite(patch.grad).all()
    loss({"image_logits": image[:1], "patch_logits": [patch[:1]]}, {key: value[:1] for key, value in target.items()})
    assert float(loss.last_terms["total"]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_kinds_of_targets(kind: torch.dtype) -> None:
    logits, label = random_logits(), (torch.rand(3, 1, 8, 8) > 0.5).float()
    target = {"image_label": torch.tensor([1.0, 0, 1]), "label": label, "has_label": torch.tensor([1.0, 1, 0])}
    expected = GlocalLoss()(logits, target)
    torch.testing.assert_close(GlocalLoss()(logits, {key: value.to(kind) for key, value in target.items()}), expected)
    columns = {**target, "image_label": target["image_label"][:, None], "has_label": target["has_label"][:, None]}
    torch.testing.assert_close(GlocalLoss()(logits, columns), expected)


def test_terms_hold_no_graph_and_are_those_of_the_last_call() -> None:
    loss, target = GlocalLoss(), {"image_label": torch.tensor([1, 0, 1]), "label": torch.ones(3, 1, 8, 8)}
    loss(random_logits(), target)
    first = dict(loss.last_terms)
    total = loss(random_logits(), target)
    assert set(first) == {"global", "focal", "dice_abnormal", "dice_normal", "total"}
    assert not any(term.requires_grad for term in loss.last_terms.values())
    assert torch.equal(loss.last_terms["total"], total.detach())
    assert not torch.equal(first["total"], loss.last_terms["total"])


def test_image_of_unknown_mask_adds_no_pixel_loss() -> None:
    logits, label = random_logits(), torch.zeros(3, 1, 8, 8)
    label[0, :, 2:5, 2:5] = 1
    target = {"image_label": torch.tensor([1, 0, 1]), "label": label, "has_label": torch.tensor([1, 1, 0])}
    loss = GlocalLoss()
    loss(logits, target).backward()
    assert all(layer.grad is not None and not layer.grad[2].any() for layer in logits["patch_logits"])
    assert logits["image_logits"].grad is not None
    assert logits["image_logits"].grad[2].any()  # its class still counts
    pixel_terms = {name: loss.last_terms[name] for name in ("focal", "dice_abnormal", "dice_normal")}
    labelled: Logits = {
        "image_logits": logits["image_logits"][:2],
        "patch_logits": [x[:2] for x in logits["patch_logits"]],
    }
    loss(labelled, {key: value[:2] for key, value in target.items()})
    for name, term in pixel_terms.items():
        torch.testing.assert_close(term, loss.last_terms[name])


def test_empty_mask_of_an_anomalous_image_counts_as_unknown() -> None:
    logits, label = random_logits(), torch.zeros(3, 1, 8, 8)
    label[0, :, :2] = 1
    target = {"image_label": torch.tensor([1, 0, 1]), "label": label}
    explicit = GlocalLoss()(logits, {**target, "has_label": torch.tensor([1, 1, 0])})
    torch.testing.assert_close(GlocalLoss()(logits, target), explicit)


def test_batch_without_any_mask_is_cross_entropy() -> None:
    logits = random_logits()
    target = {"image_label": torch.tensor([1, 1, 1]), "label": torch.zeros(3, 1, 8, 8), "has_label": torch.zeros(3)}
    expected = torch.nn.functional.cross_entropy(logits["image_logits"], target["image_label"])
    torch.testing.assert_close(GlocalLoss()(logits, target), expected)


@pytest.mark.parametrize("lambda_local", [0.0, 1.0, 4.0])
def test_lambda_weights_the_pixel_terms(lambda_local: float) -> None:
    logits, label = random_logits(), (torch.rand(3, 1, 8, 8) > 0.5).float()
    loss = GlocalLoss(lambda_local)
    total = loss(logits, {"image_label": torch.tensor([1, 0, 1]), "label": label, "has_label": torch.ones(3)})
    terms = loss.last_terms
    pixel = terms["focal"] + terms["dice_abnormal"] + terms["dice_normal"]
    torch.testing.assert_close(total.detach(), terms["global"] + lambda_local * pixel)


def test_bad_shapes_and_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label \(B, 1, H, W\)"):
        GlocalLoss()(random_logits(), {"image_label": torch.zeros(3), "label": torch.zeros(3, 8, 8)})
    for shapes in ({"image_label": (2,), "label": (3, 1, 8, 8)}, {"image_label": (3,), "label": (2, 1, 8, 8)}):
        with pytest.raises(ValueError, match="For 3 images the targets must be"):
            GlocalLoss()(random_logits(), {key: torch.zeros(shape) for key, shape in shapes.items()})
    with pytest.raises(ValueError, match="For 3 images the targets must be"):
        GlocalLoss()(random_logits(), {"image_label": torch.zeros(3), "label": torch.zeros(3, 2, 8, 8)})
    for value in (-1, math.nan):
        with pytest.raises(ValueError, match=f"lambda_local={value}"):
            GlocalLoss(value)


def test_without_dice_on_normal_images() -> None:
    """The Dice terms are means over the images with an anomaly, whatever normal ones are beside them."""
    generator = torch.Generator().manual_seed(3)
    patches = torch.randn(4, 2, 6, 6, generator=generator)
    label = torch.zeros(4, 1, 12, 12)
    label[0, 0, 2:6, 3:9] = 1
    label[2, 0, 5:11, 1:4] = 1
    image_label = torch.tensor([1, 0, 1, 0])
    logits = {"image_logits": torch.randn(4, 2, generator=generator), "patch_logits": [patches]}
    setting, published, alone = GlocalLoss(dice_on_normal_images=False), GlocalLoss(), GlocalLoss()
    total = setting(logits, {"image_label": image_label, "label": label})
    published(logits, {"image_label": image_label, "label": label})
    chosen = [0, 2]
    abnormal = {"image_logits": logits["image_logits"][chosen], "patch_logits": [patches[chosen]]}
    alone(abnormal, {"image_label": image_label[chosen], "label": label[chosen]})
    for name in ("dice_abnormal", "dice_normal"):
        torch.testing.assert_close(setting.last_terms[name], alone.last_terms[name])
    torch.testing.assert_close(setting.last_terms["global"], published.last_terms["global"])
    # Means over four and over two: what is left of the sum is that of the two normal ones.
    of_normal = (4 * published.last_terms["focal"] - 2 * alone.last_terms["focal"]) / 4
    torch.testing.assert_close(setting.last_terms["focal"], alone.last_terms["focal"] + of_normal)
    terms = [setting.last_terms[name] for name in ("focal", "dice_abnormal", "dice_normal")]
    torch.testing.assert_close(total, setting.last_terms["global"] + 4 * torch.stack(terms).sum())
    normal = [1, 3]
    none = setting(
        {"image_logits": logits["image_logits"][normal], "patch_logits": [patches[normal]]},
        {"image_label": image_label[normal], "label": label[normal]},
    )
    assert none.isfinite()
    assert float(setting.last_terms["dice_abnormal"]) == 0
