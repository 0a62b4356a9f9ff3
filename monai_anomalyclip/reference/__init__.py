# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Compare images with normal images of one's own, and say how unusual a score is among theirs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clip_tower import clip_encoder
    from .comparison import Comparison, volume_p_value
    from .conformal import ConformalScores, fewest_normals, pixel_threshold
    from .encoder_choice import make_encoder
    from .encoders import EncoderIdentity, PatchEncoder
    from .lite0 import efficientnet_lite0
    from .memory_bank import MemoryBank, image_score
    from .normal_reference import NormalReference, RankedNormal
    from .normals import NormalImage, normal_images, slices_of
    from .patch_features import join_stages
    from .timm_backbone import timm_encoder
    from .torchvision_backbone import torchvision_encoder

__all__ = [
    "Comparison",
    "ConformalScores",
    "EncoderIdentity",
    "MemoryBank",
    "NormalImage",
    "NormalReference",
    "PatchEncoder",
    "RankedNormal",
    "clip_encoder",
    "efficientnet_lite0",
    "fewest_normals",
    "image_score",
    "join_stages",
    "make_encoder",
    "normal_images",
    "pixel_threshold",
    "slices_of",
    "timm_encoder",
    "torchvision_encoder",
    "volume_p_value",
]

_HOMES = {
    "Comparison": "comparison",
    "ConformalScores": "conformal",
    "EncoderIdentity": "encoders",
    "MemoryBank": "memory_bank",
    "NormalImage": "normals",
    "NormalReference": "normal_reference",
    "PatchEncoder": "encoders",
    "RankedNormal": "normal_reference",
    "clip_encoder": "clip_tower",
    "efficientnet_lite0": "lite0",
    "fewest_normals": "conformal",
    "image_score": "memory_bank",
    "join_stages": "patch_features",
    "make_encoder": "encoder_choice",
    "normal_images": "normals",
    "pixel_threshold": "conformal",
    "slices_of": "normals",
    "timm_encoder": "timm_backbone",
    "torchvision_encoder": "torchvision_backbone",
    "volume_p_value": "comparison",
}


def __getattr__(name: str) -> Any:
    # Only what is used is imported: calibration needs neither timm nor torchvision.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
