# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Encoders by name, the encoder that a reference was made with, and a network's own CLIP tower as an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork
from monai_anomalyclip.reference.encoders import EncoderIdentity, PatchEncoder
from monai_anomalyclip.transforms.clip_preprocess import clip_normalize_resize

__all__ = ["LITE0_NAME", "clip_encoder", "encoder_like", "make_encoder"]

LITE0_NAME = "efficientnet-lite0"

_GRID = 18


def make_encoder(name: str = LITE0_NAME, weights: str | Path | None = None, **settings: Any) -> PatchEncoder:
    """An encoder by its name.

    Args:
        name: "efficientnet-lite0" (from its package), "timm:NAME", "torchvision:NAME", or "clip:BUNDLE" for the vision
            tower of a bundle of AnomalyCLIP.
        weights: local file of weights; for timm also "hub". Without it those two have random ones.
        settings: keyword arguments of the maker: ``image_size``, ``grid``, ``normalise``, ``stages`` or ``nodes``.

    Raises:
        ImportError: what it needs is not installed.
        FileNotFoundError: there is no such file of weights.
        ValueError: there is no such encoder, or weights or settings do not suit it.
    """
    kind, _, model = name.partition(":")
    if name == LITE0_NAME:
        from monai_anomalyclip.reference.timm_backbone import efficientnet_lite0

        return efficientnet_lite0(weights, **settings)
    if kind == "timm" and model:
        from monai_anomalyclip.reference.timm_backbone import timm_encoder

        return timm_encoder(model, weights, **settings)
    if kind == "torchvision" and model:
        from monai_anomalyclip.reference.torchvision_backbone import torchvision_encoder

        return torchvision_encoder(model, weights, **settings)
    if kind == "clip" and model:
        return _tower_of_bundle(model, **settings)
    raise ValueError(
        f"There is no encoder {name!r}: {LITE0_NAME}, timm:NAME, torchvision:NAME and clip:BUNDLE are known."
    )


def _tower_of_bundle(bundle: str | Path, **settings: Any) -> PatchEncoder:
    from monai_anomalyclip.bundles.errors import cause_of
    from monai_anomalyclip.bundles.shipped import bundle_parser, inference_config

    try:
        network = bundle_parser(inference_config(bundle)).get_parsed_content("network_def")
    except RuntimeError as error:  # MONAI wraps what its expressions raise
        raise cause_of(error) from None
    return clip_encoder(network.eval(), **settings)


def encoder_like(identity: EncoderIdentity, weights: str | Path | None = None) -> PatchEncoder:
    """The encoder that an identity describes.

    Args:
        identity: from a reference.
        weights: see :func:`make_encoder`; whether they are the right ones, the digest tells later.

    Raises:
        FileNotFoundError: its weights are not those of a package, and neither they nor its bundle were given.
        ValueError: see :func:`make_encoder`.
    """
    if identity.name.startswith("clip:"):
        if weights is None:
            raise FileNotFoundError(
                f"The reference was made with the vision tower {identity.name[5:]}: give the bundle that it belongs to "
                "as its weights, or encoder=clip_encoder(network)."
            )
        kept = ("grid", "normalise")
        return _tower_of_bundle(weights, **{key: identity.settings[key] for key in kept if key in identity.settings})
    if identity.name != LITE0_NAME and weights is None:
        raise FileNotFoundError(
            f"The reference was made with {identity.name}: give the file of its weights (--encoder-weights FILE)."
        )
    wanted = ("image_size", "grid", "normalise", "stages", "nodes")
    settings = {key: identity.settings[key] for key in wanted if key in identity.settings}
    return make_encoder(identity.name, weights, **settings)


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
