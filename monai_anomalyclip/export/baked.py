# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A network whose prompts are constants: what is exported, with nothing of the text tower left in it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TypeVar

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from monai_anomalyclip.networks import FrozenCLIPNetwork

__all__ = ["BakedNetwork"]

Network = TypeVar("Network", bound=FrozenCLIPNetwork)


class BakedNetwork(nn.Module):
    """Image in, map and score out; the prompts were encoded once, the text tower is gone.

    The vision tower and what else the network learned are shared with the given network, not copied.

    Args:
        network: AnomalyCLIP or a baseline, prompts loaded.
        image_size: side of the square input in pixels, at which the export will be made.

    Raises:
        ValueError: when the image size is no multiple of the patch size.
    """

    text_features: Tensor

    def __init__(self, network: FrozenCLIPNetwork, image_size: int) -> None:
        super().__init__()
        if image_size < 1 or image_size % network.patch_size:
            below = max(1, image_size // network.patch_size) * network.patch_size
            raise ValueError(
                f"The image size {image_size} is no multiple of the patch size {network.patch_size} of "
                f"'{network.backbone_name}': use {below} or {below + network.patch_size}."
            )
        with torch.no_grad():
            self.register_buffer("text_features", network.encode_prompts().detach())
            self.network = _without_text(network)
            self.network.__dict__["encode_prompts"] = self._constant_prompts
            # Once for real, so that the positions resized to this image size are there as numbers when it is traced.
            device = self.text_features.device
            self(torch.zeros(1, 3, image_size, image_size, device=device))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch.

        Args:
            image: CLIP-normalised, shape (B, 3, H, W).

        Returns:
            anomaly map (B, 1, H, W) and anomaly score (B,), both in [0, 1].
        """
        prediction = self.network.predict(image)
        return prediction["anomaly_map"], prediction["anomaly_score"]

    def _constant_prompts(self) -> Tensor:
        return self.text_features


def _without_text(network: Network) -> Network:
    """A shallow copy that has the vision tower of the CLIP only, no prompts, and an ordinary state dict."""
    vision_only = CLIP.__new__(CLIP)
    nn.Module.__init__(vision_only)
    vision_only.visual = network.clip.visual
    bare = copy.copy(network)
    modules = {name: module for name, module in network._modules.items() if name != "prompts"}
    bare.__dict__["_modules"] = {**modules, "clip": vision_only}
    bare.__dict__["_state_dict_hooks"] = OrderedDict()  # which leave the frozen CLIP out
    return bare
