# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .cohort import CohortInferer, CohortNetwork
from .comparison import Comparison, RankedNormal, volume_p_value
from .conformal import ConformalScores, fewest_normals, pixel_threshold
from .encoder_choice import clip_encoder, make_encoder
from .encoders import EncoderIdentity, PatchEncoder, join_stages
from .folders import build_reference, normals_in, reference_of_folder
from .fusion import allowed_rule, fuse, measure_gain
from .memory_bank import MemoryBank, image_score
from .normal_reference import NormalReference
from .normals import NormalImage, normal_images, slices_of
from .reference_network import ReferenceInferer, ReferenceNetwork, SideBySideInferer
from .score_calibration import CompareWithNormalsd, NormalScores, normal_scores, normals_path
from .timm_backbone import efficientnet_lite0, timm_encoder
from .torchvision_backbone import torchvision_encoder

__all__ = [
    "CohortInferer",
    "CohortNetwork",
    "CompareWithNormalsd",
    "Comparison",
    "ConformalScores",
    "EncoderIdentity",
    "MemoryBank",
    "NormalImage",
    "NormalReference",
    "NormalScores",
    "PatchEncoder",
    "RankedNormal",
    "ReferenceInferer",
    "ReferenceNetwork",
    "SideBySideInferer",
    "allowed_rule",
    "build_reference",
    "clip_encoder",
    "efficientnet_lite0",
    "fewest_normals",
    "fuse",
    "image_score",
    "join_stages",
    "make_encoder",
    "measure_gain",
    "normal_images",
    "normal_scores",
    "normals_in",
    "normals_path",
    "pixel_threshold",
    "reference_of_folder",
    "slices_of",
    "timm_encoder",
    "torchvision_encoder",
    "volume_p_value",
]
