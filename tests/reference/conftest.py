# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A small encoder with seeded random weights, and pictures of one kind for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monai_anomalyclip.reference import PatchEncoder


class TwoStages(nn.Module):
    """Two feature maps of 8 x 8 and 4 x 4 of a square of 32."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 6, 4, stride=4)
        self.second = nn.Conv2d(6, 8, 2, stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.first(images).tanh()
        return [first, self.second(first).tanh()]


@pytest.fixture
def make_small_encoder() -> Callable[..., PatchEncoder]:
    """``make_small_encoder(seed=0, **settings)``."""

    def make(seed: int = 0, **settings: object) -> PatchEncoder:
        options = {"image_size": 32, "grid": 4, "n_stages": 2, **settings}
        return PatchEncoder(TwoStages(seed), "small", **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def small_encoder(make_small_encoder: Callable[..., PatchEncoder]) -> PatchEncoder:
    return make_small_encoder()


@pytest.fixture
def pictures() -> Callable[..., list[Tensor]]:
    """``pictures(n, seed=0)``: variations of one scene, each (3, 40, 48) in [0, 1]."""
    scene = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(77))

    def make(count: int, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        coarse = 0.75 * scene + 0.25 * torch.rand(count, 3, 5, 6, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(40, 48), mode="bilinear")
        return list(smooth.clamp(0, 1))

    return make
