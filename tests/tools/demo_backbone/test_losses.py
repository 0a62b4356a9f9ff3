# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from open_clip import CLIP, SimpleTokenizer
from torch.nn import functional as F

from monai_anomalyclip.demo.phantoms import Phantom
from monai_anomalyclip.networks.dpam import DualPathVision
from tools.demo_backbone.captions import Caption, CaptionPair
from tools.demo_backbone.losses import agreement_losses, text_features, vision_features
from tools.demo_backbone.training import BACKBONE_CONFIG

BLANK = np.zeros((4, 4, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(**BACKBONE_CONFIG["clip"]).eval()


def test_trained_features_are_those_that_the_network_reads(model: CLIP) -> None:
    start, (layer,) = BACKBONE_CONFIG["dpam_start"], BACKBONE_CONFIG["feature_layers"]
    image = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        whole, local = vision_features(model, image, start, None)
        expected_whole, (expected_local,) = DualPathVision([layer], start, ["vv"])(model.visual, image)
    torch.testing.assert_close(whole, expected_whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(local, expected_local[:, 1:], rtol=1e-4, atol=1e-5)


def test_text_features_are_open_clips(model: CLIP) -> None:
    tokens = SimpleTokenizer()(["a damaged metal plate", "here you can see a flawless woven cloth on the table"])
    with torch.no_grad():
        expected = F.normalize(model.encode_text(tokens), dim=-1)
        torch.testing.assert_close(text_features(model, tokens), expected, rtol=1e-4, atol=1e-5)


def test_kept_patches_are_the_chosen_ones(model: CLIP) -> None:
    """All patches in another order give the same features in that order."""
    image = torch.randn(1, 3, 112, 112)
    order = torch.randperm(196)[None]
    with torch.no_grad():
        whole, local = vision_features(model, image, 4, None)
        same, shuffled = vision_features(model, image, 4, order)
    torch.testing.assert_close(same, whole, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(shuffled, local[:, order[0]], rtol=1e-3, atol=1e-4)


def test_losses_against_plain_sums(model: CLIP) -> None:
    """The three parts written out by hand for two pictures; the stained one is anomalous but not broken."""
    phantoms = [Phantom("wood", BLANK, BLANK[..., 0] > 0, ""), Phantom("wood", BLANK, BLANK[..., 0] > 0, "stain")]
    captions = [Caption("a photo of wood", "wood", None), Caption("an abnormal plank", "wood", True)]
    pairs = [CaptionPair("normal thing", "faulty thing"), CaptionPair("intact thing", "broken thing", broken=True)]
    whole, local = F.normalize(torch.randn(2, 64), dim=-1), F.normalize(torch.randn(2, 5, 64), dim=-1)
    patches = torch.tensor([[0.0] * 5, [0.0, 1.0, 0.5, 0.0, 0.0]])
    tokenizer = SimpleTokenizer()
    with torch.no_grad():
        parts = agreement_losses(whole, local, patches, phantoms, captions, pairs, model, tokenizer)
        words = {text: text_features(model, tokenizer([text]))[0] for c in captions for text in [c.text]}
        words |= {t: text_features(model, tokenizer([t]))[0] for p in pairs for t in (p.normal, p.abnormal)}

    def cosine(a: torch.Tensor, text: str) -> float:
        return float(a @ words[text]) / 0.07

    def log_softmax(values: list[float], index: int) -> float:
        return values[index] - math.log(sum(math.exp(v) for v in values))

    table = [[cosine(image, c.text) for c in captions] for image in whole]
    # The silent caption is true of both pictures, the other one of the second only.
    rows = -log_softmax(table[0], 0) - 0.5 * (log_softmax(table[1], 0) + log_softmax(table[1], 1))
    first, second = ([row[i] for row in table] for i in (0, 1))
    columns = -0.5 * (log_softmax(first, 0) + log_softmax(first, 1)) - log_softmax(second, 1)
    assert float(parts["contrast"]) == pytest.approx((rows / 2 + columns / 2) / 2, rel=1e-4)

    states = [[cosine(image, text) for text in (p.normal, p.abnormal)] for image, p in zip(whole, pairs, strict=True)]
    assert float(parts["state"]) == pytest.approx(
        -(log_softmax(states[0], 0) + log_softmax(states[1], 0)) / 2, rel=1e-4
    )

    def softplus(value: float) -> float:
        return math.log1p(math.exp(-abs(value))) + max(value, 0)

    # The second pair asks for breakage, so the stain's patches say nothing about it.
    levels = [cosine(patch, "faulty thing") - cosine(patch, "normal thing") for patch in local[0]]
    assert float(parts["patch"]) == pytest.approx(sum(map(softplus, levels)) / 10, rel=1e-4)
