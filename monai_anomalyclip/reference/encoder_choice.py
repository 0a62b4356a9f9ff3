# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Encoders by name, and the encoder that a reference was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_anomalyclip.reference.encoders import EncoderIdentity, PatchEncoder

__all__ = ["encoder_like", "make_encoder"]

_LITE0 = "efficientnet-lite0"


def make_encoder(name: str = _LITE0, weights: str | Path | None = None, **settings: Any) -> PatchEncoder:
    """An encoder by its name.

    Args:
        name: "efficientnet-lite0" (from its package), "timm:NAME" or "torchvision:NAME".
        weights: local file of weights; for timm also "hub". Without it those two have random ones.
        settings: keyword arguments of the maker: ``image_size``, ``grid``, ``normalise``, ``stages`` or ``nodes``.

    Raises:
        ImportError: what it needs is not installed.
        FileNotFoundError: there is no such file of weights.
        ValueError: there is no such encoder, or weights or settings do not suit it.
    """
    kind, _, model = name.partition(":")
    if name == _LITE0:
        from monai_anomalyclip.reference.lite0 import efficientnet_lite0

        return efficientnet_lite0(weights, **settings)
    if kind == "timm" and model:
        from monai_anomalyclip.reference.timm_backbone import timm_encoder

        return timm_encoder(model, weights, **settings)
    if kind == "torchvision" and model:
        from monai_anomalyclip.reference.torchvision_backbone import torchvision_encoder

        return torchvision_encoder(model, weights, **settings)
    raise ValueError(
        f"There is no encoder {name!r}: {_LITE0}, timm:NAME and torchvision:NAME are known; the tower of an "
        "AnomalyCLIP network is given as clip_encoder(network)."
    )


def encoder_like(identity: EncoderIdentity, weights: str | Path | None = None) -> PatchEncoder:
    """The encoder that an identity describes.

    Args:
        identity: from a reference.
        weights: see :func:`make_encoder`; whether they are the right ones, the digest tells later.

    Raises:
        FileNotFoundError: its weights are not those of a package and were not given.
        ValueError: it cannot be made from a description, as the tower of a network; see also :func:`make_encoder`.
    """
    if identity.name.startswith("clip:"):
        raise ValueError(
            f"The reference was made with the vision tower {identity.name[5:]}: give encoder=clip_encoder(network)."
        )
    if identity.name != _LITE0 and weights is None:
        raise FileNotFoundError(f"The reference was made with {identity.name}: give the file of its weights.")
    wanted = ("image_size", "grid", "normalise", "stages", "nodes")
    settings = {key: identity.settings[key] for key in wanted if key in identity.settings}
    return make_encoder(identity.name, weights, **settings)
