# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from monai_anomalyclip.baselines import PlainVision
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
