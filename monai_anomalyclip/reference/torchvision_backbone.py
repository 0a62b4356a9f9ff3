# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Any CNN of torchvision as an encoder: the last feature map of each of its coarsest resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from monai_anomalyclip.reference.encoder_weights import fill_by_name, read_weights, warn_of_random_weights
from monai_anomalyclip.reference.encoders import PatchEncoder

__all__ = ["torchvision_encoder"]

_STAGES, _FEWEST = 3, 2


def torchvision_encoder(
    model: str,
    weights: str | Path | None = None,
    *,
    nodes: Sequence[str] | None = None,
    image_size: int = 288,
    grid: int = 18,
    normalise: bool = True,
) -> PatchEncoder:
    """A backbone of torchvision.

    Args:
        model: torchvision's name, such as "resnet50", "convnext_tiny", "mobilenet_v3_small".
        weights: a local state dict, or None for random ones (with a warning).
        nodes: layers whose outputs are used, by their names; by default the last of each of the three coarsest
            resolutions.
        image_size: side of the square that images are squashed to.
        grid: patches along a side.
        normalise: bring each stage's features to unit length.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: torchvision has no such model, it has no feature maps, or the weights are of another one.
    """
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"torchvision has no classifier {model!r}: torchvision.models.list_models() lists them.")
    network = torchvision.models.get_model(model, weights=None).eval()
    if weights is None:
        warn_of_random_weights(model)
    else:
        fill_by_name(network, read_weights(weights), Path(weights).name)
    chosen = list(nodes) if nodes is not None else _coarsest(network, image_size)
    if len(chosen) < (_FEWEST if nodes is None else 1):  # a transformer's only map is that of its patches as they came
        raise ValueError(f"torchvision's {model} gives no feature maps: name its layers as nodes, or choose another.")
    try:
        trunk = create_feature_extractor(network, return_nodes=chosen)
    except ValueError as error:
        raise ValueError(f"torchvision's {model} has no layers {', '.join(chosen)}: {error}") from error
    return PatchEncoder(
        _InOrder(trunk),
        f"torchvision:{model}",
        image_size=image_size,
        n_stages=len(chosen),
        grid=grid,
        normalise=normalise,
        settings={"nodes": chosen},
    )


class _InOrder(nn.Module):
    """Outputs as a list, in the order of the network."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.trunk(images).values())


def _coarsest(network: nn.Module, side: int) -> list[str]:
    """Layers directly below the network or its ``features`` that end a resolution: the last three resolutions."""
    found: dict[int, str] = {}
    body: Any = getattr(network, "features", network)
    prefix = "" if body is network else "features."

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1:
                found.pop(output.shape[-1], None)  # so that the order is that of the network
                found[output.shape[-1]] = name

        return hook

    hooks = [child.register_forward_hook(note(f"{prefix}{name}")) for name, child in body.named_children()]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())[-_STAGES:]
