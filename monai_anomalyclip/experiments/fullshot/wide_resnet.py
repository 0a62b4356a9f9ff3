# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen ImageNet network of the full-shot methods, with weights from a local file or with random ones."""

from __future__ import annotations

import warnings
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor, nn

from monai_anomalyclip.weights.integrity import sha256_of

__all__ = ["BACKBONES", "check_backbone", "fill_backbone", "weights_sha256"]

BACKBONES = (
    "wide_resnet50_2", "wide_resnet101_2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d",
)  # fmt: skip
"""timm's names of the networks for which anomalib has RD4AD's decoder; PatchCore takes the same."""


def check_backbone(name: str) -> None:
    """Check a backbone's name before anything is built.

    Raises:
        ValueError: unless it is one of :data:`BACKBONES`.
    """
    if name not in BACKBONES:
        raise ValueError(f"The backbone '{name}' is not one of {', '.join(BACKBONES)}.")


def weights_sha256(weights: str | Path | None) -> str | None:
    """SHA-256 of a weights file, None for random weights.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    if weights is None:
        return None
    if not Path(weights).is_file():
        raise FileNotFoundError(
            f"There are no backbone weights at '{weights}': give a state dict of torchvision or timm (.pth, "
            ".safetensors), or 'none' for random weights."
        )
    return sha256_of(weights)


def fill_backbone(extractor: nn.Module, name: str, weights: str | Path | None) -> None:
    """Load weights into the layers that a method taps; the layers behind them may be in the file or not.

    Nothing in the file is executed and nothing is downloaded.

    Args:
        extractor: timm's network, cut off behind the last tapped layer, filled in place.
        name: of the backbone, for the messages.
        weights: a state dict as torchvision or timm publish it (.pth, .pt, .safetensors, also under "state_dict" or
            "model"), or None to leave the random weights, with a warning.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, is of another backbone, or holds values that are not finite.
    """
    if weights is None:
        warnings.warn(
            f"The backbone '{name}' has random weights (weights=None): its figures are not those of the method, which "
            "needs ImageNet weights; for tests and demonstrations only.",
            stacklevel=3,
        )
        return
    weights_sha256(weights)
    try:
        content = load_state_dict(str(weights), use_ema=False, weights_only=True)
    except Exception as error:  # damaged, no state dict, or a pickle that would run code: torch refuses it
        raise ValueError(
            f"'{weights}' cannot be read safely (weights_only) as backbone weights: {type(error).__name__}."
        ) from error
    # Counters of the batch normalisation: absent from old files, and without effect in a frozen network.
    wanted = {key: value for key, value in extractor.state_dict().items() if not key.endswith("num_batches_tracked")}
    wrong = [
        key
        for key, value in wanted.items()
        if not isinstance(content.get(key), Tensor) or content[key].shape != value.shape
    ]
    if wrong:
        raise ValueError(
            f"'{weights}' does not fit the backbone '{name}': {len(wrong)} of {len(wanted)} tensors are missing or of "
            f"another shape, the first of them {wrong[0]}."
        )
    if not all(bool(content[key].isfinite().all()) for key in wanted):
        raise ValueError(f"The weights in '{weights}' are not all finite.")
    extractor.load_state_dict({key: content[key] for key in wanted}, strict=False)
