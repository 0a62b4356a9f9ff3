# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The CLIP tower of an AnomalyCLIP network as an encoder: the patch features that its maps are made from."""

from __future__ import annotations

from torch import Tensor, nn

from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork
from monai_anomalyclip.reference.encoders import PatchEncoder
from monai_anomalyclip.transforms.clip_preprocess import clip_normalize_resize

__all__ = ["clip_encoder"]

_GRID = 18


def clip_encoder(network: FrozenCLIPNetwork, *, grid: int | None = None, normalise: bool = True) -> PatchEncoder:
    """The vision tower of a network, which is shared and not copied; learned prompts play no part.

    Args:
        network: AnomalyCLIP, or a method it is compared with.
        grid: patches along a side; by default the tower's own, at most 18.
        normalise: bring each tapped layer's features to unit length.

    Raises:
        ValueError: the grid is out of range, or the network has no tapped layers.

    Example::

        NormalReference.build(images, encoder=clip_encoder(AnomalyCLIP()))
    """
    layers = network.feature_settings.get("feature_layers")
    if not layers:
        raise ValueError(f"{type(network).__name__} does not say which layers it taps: give an AnomalyCLIP network.")
    side = network.image_size
    return PatchEncoder(
        _PatchTokens(network),
        f"clip:{network.backbone_name}",
        image_size=side,
        n_stages=len(layers),
        grid=min(_GRID, side // network.patch_size) if grid is None else grid,
        normalise=normalise,
        settings={key: value for key, value in network.feature_settings.items() if key != "image_size"},
        prepare=lambda images: clip_normalize_resize(images, (side, side)),
        weights=network.clip.visual,
    )


class _PatchTokens(nn.Module):
    """Patch tokens of each tapped layer as a feature map; the kinds of an attention ensemble lie side by side."""

    def __init__(self, network: FrozenCLIPNetwork) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple: freezing the encoder must not freeze the network's prompts

    def forward(self, images: Tensor) -> list[Tensor]:
        (network,) = self._network
        device = next(network.clip.parameters()).device
        _, tapped = network.encode_image(images.to(device))
        size = images.shape[-1] // network.patch_size
        maps = []
        for tokens in tapped:
            kinds = tokens[:, None] if tokens.ndim == 3 else tokens
            patches = kinds[:, :, 1:].permute(0, 1, 3, 2).flatten(1, 2)  # (B, A * D, patches)
            maps.append(patches.reshape(len(patches), -1, size, size).to(images.device))
        return maps
