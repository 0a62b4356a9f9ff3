# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Cut labelled images into slices as inference does, and choose the slices that prompts are tuned on."""

from __future__ import annotations

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_anomalyclip.data.slicing import SliceView

__all__ = ["MAX_SLICES", "labelled_slices", "representative_slices"]

MAX_SLICES = 24
"""Of a volume, as many slices with an anomaly are used at most."""


def labelled_slices(image: MetaTensor, label: Tensor, slice_axis: int | str = "auto") -> tuple[Tensor, Tensor]:
    """All slices of an image as inference shows them to the network, and their masks.

    Args:
        image: picture (C, H, W) or volume (C, X, Y, Z) with its affine.
        label: mask (1, H, W) or (1, X, Y, Z) on the image's grid.
        slice_axis: see :meth:`~monai_anomalyclip.data.slicing.SliceView.from_affine`.

    Returns:
        slices (N, C, H, W) and masks (N, 1, H, W); a picture is one slice.
    """
    if image.ndim == 3:
        return image.as_tensor()[None], label[None]
    if image.meta.get("native_slices"):
        view = SliceView.native(image.shape[1:])
    else:
        view = SliceView.from_affine(image.affine, image.shape[1:], slice_axis)
    return view.to_slices(image), view.to_slices(label)


def representative_slices(masks: Tensor, max_slices: int = MAX_SLICES) -> Tensor:
    """Numbers of the slices to tune on, in ascending order and evenly spread.

    At most `max_slices` slices with an anomaly and as many normal ones as of these; of a normal study, whose label is
    empty, `max_slices` in all.

    Args:
        masks: (N, 1, H, W), not 0 where there is an anomaly.
        max_slices: bound on time and memory.
    """
    marked = masks.flatten(1).bool().any(dim=1)
    anomalous, normal = marked.nonzero().flatten(), (~marked).nonzero().flatten()
    taken = _spread(anomalous, max_slices)
    rest = _spread(normal, len(taken) if len(taken) else max_slices)
    return torch.cat([taken, rest]).sort().values


def _spread(index: Tensor, count: int) -> Tensor:
    if len(index) <= count:
        return index
    return index[np.linspace(0, len(index) - 1, count).round().astype(int)]
