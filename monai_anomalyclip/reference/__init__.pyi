# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

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
from .reference_network import ReferenceInferer, ReferenceNetwork
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
    "ReferenceInferer",
    "ReferenceNetwork",
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
