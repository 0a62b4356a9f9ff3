# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 trained on ImageNet: the encoder that comes as a Python package of 17 MB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm
import torch

from monai_anomalyclip.reference.encoder_weights import fill_by_order, packaged_lite0
from monai_anomalyclip.reference.encoders import PatchEncoder

__all__ = ["LITE0", "efficientnet_lite0"]

LITE0 = "efficientnet-lite0"
"""The encoder's name."""

_ARCHITECTURE = "tf_efficientnet_lite0"
_STAGES = {2: 2, 3: 4, 4: 6}  # timm's number of the feature map: the block that ends with it


def efficientnet_lite0(
    weights: str | Path | None = None,
    *,
    stages: Sequence[int] = (2, 4, 6),
    image_size: int = 288,
    grid: int = 18,
    normalise: bool = True,
) -> PatchEncoder:
    """EfficientNet-Lite0 from its package (extra ``reference``), whose file's SHA-256 is checked.

    The defaults are those that were best in a trial on five sets of real images.

    Args:
        weights: another file with the same 296 tensors in the same order.
        stages: the blocks, of 2, 4 and 6, whose feature maps are used.
        image_size: side of the square that images are squashed to.
        grid: patches along a side.
        normalise: bring each stage's features to unit length.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: there is no such file of weights.
        ValueError: the weights are other ones, or an argument is out of range.
    """
    if not stages or not set(stages) <= set(_STAGES.values()):
        raise ValueError(f"stages={list(stages)} must be some of {list(_STAGES.values())}.")
    file = packaged_lite0() if weights is None else Path(weights)
    if not file.is_file():
        raise FileNotFoundError(f"There are no encoder weights at '{file}': leave them out to use the package's.")
    try:
        # By order, so not through a reader that sorts: of safetensors the order is lost.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"The encoder weights '{file.name}' cannot be read ({type(error).__name__}).") from error
    whole = timm.create_model(_ARCHITECTURE, pretrained=False)
    fill_by_order(whole, content, file.name)
    wanted = [number for number, block in _STAGES.items() if block in stages]
    trunk = timm.create_model(_ARCHITECTURE, pretrained=False, features_only=True, out_indices=wanted)
    tensors = whole.state_dict()
    trunk.load_state_dict({key: tensors[key] for key in trunk.state_dict()})
    return PatchEncoder(
        trunk,
        LITE0,
        image_size=image_size,
        n_stages=len(wanted),
        grid=grid,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        normalise=normalise,
        settings={"stages": sorted(stages)},
    )
