# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Encoders by name, and the encoder that a reference was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_anomalyclip.reference.encoders import EncoderIdentity, PatchEncoder

__all__ = ["LITE0_NAME", "encoder_like", "make_encoder"]

LITE0_NAME = "efficientnet-lite0"


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
    from monai.bundle import ConfigParser

    from monai_anomalyclip.bundles.errors import cause_of
    from monai_anomalyclip.bundles.shipped import inference_config, literal_path
    from monai_anomalyclip.reference.clip_tower import clip_encoder

    config = inference_config(Path(bundle))
    parser = ConfigParser()
    parser.read_config(str(config))
    parser["bundle_root"] = literal_path(config.parents[1].absolute())
    try:
        network = parser.get_parsed_content("network_def")
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
