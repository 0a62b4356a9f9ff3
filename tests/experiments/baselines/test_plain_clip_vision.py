# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from monai_anomalyclip.experiments.baselines import PlainVision
from monai_anomalyclip.networks import Backbone


@torch.no_grad()
def test_image_feature_is_open_clips_own(backbone: Backbone, image: Tensor) -> None:
    cropped = image[..., :56, :56]  # the size that the tower was trained at
    feature, tapped = PlainVision([12], project=True)(backbone.clip.visual, cropped)
    torch.testing.assert_close(feature, backbone.clip.encode_image(cropped))
    torch.testing.assert_close(tapped[0][:, 0], feature)


@pytest.mark.parametrize("project", [False, True])
@torch.no_grad()
def test_tokens_equal_the_oracle(
    project: bool, backbone: Backbone, image: Tensor, wide_image: Tensor, plain: ModuleType
) -> None:
    weights = backbone.clip.state_dict()
    vision = PlainVision([3, 12], project=project)
    for pixels in (image, wide_image):
        feature, tapped = vision(backbone.clip.visual, pixels)
        expected = [plain.after_blocks(weights, plain.embed(weights, pixels))[number] for number in (2, 11)]
        torch.testing.assert_close(feature, plain.project(weights, expected[1][:, 0]))
        for tokens, target in zip(tapped, expected, strict=True):
            torch.testing.assert_close(tokens, plain.project(weights, target) if project else target)
