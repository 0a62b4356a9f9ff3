# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Slices and masks from final labels, with the features of the frozen encoder computed once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.label.label_files import read_label
from monai_anomalyclip.label.labelled_slices import MAX_SLICES, labelled_slices, representative_slices
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.transforms.clip_preprocess import CLIPMaskPreprocess, clip_normalize_resize, image_size_pair

__all__ = ["LabelledSlices", "encode_labelled"]

logger = logging.getLogger(__name__)

_BATCH = 8


@dataclass(frozen=True)
class LabelledSlices:
    """Encoded slices of labelled images.

    Attributes:
        global_features: (N, D), like all tensors here on the CPU: those of many volumes need not fit on a GPU.
        patch_features: (N, layers, ...), as :meth:`AnomalyCLIP.encode_image` gives them, stacked.
        label: (N, 1, S, S) of 0 and 1, at the network's size.
        image_label: (N,), 1 for slices with an anomaly; also where it is so small that nothing of it is left in
            ``label``.
        images: how many images they are of.
        normal_images: how many of these have an empty label.
        unreadable: how many images were left out because image or label cannot be read.
    """

    global_features: Tensor
    patch_features: Tensor
    label: Tensor
    image_label: Tensor
    images: int
    normal_images: int
    unreadable: int


def encode_labelled(
    pairs: Iterable[Mapping[str, str | os.PathLike[str]]],
    network: AnomalyCLIP,
    inferer: AnomalySliceInferer,
    *,
    preset: str = "auto",
    max_slices: int = MAX_SLICES,
) -> LabelledSlices:
    """Read images with their final labels, cut volumes as inference does, and encode the slices.

    Of a volume :func:`~monai_anomalyclip.label.labelled_slices.representative_slices` are taken.

    Args:
        pairs: ``{"image": path, "label": path}``, as a MONAI Label datastore lists them.
        network: whose encoder is used, on the device it lies on.
        inferer: the one that inference uses.
        preset: intensity preset of volumes; that of inference.
        max_slices: of a volume; bounds time and memory.

    Raises:
        ValueError: there is no pair that can be read.
    """
    global_features, patch_features, labels, image_labels = [], [], [], []
    images = normal = unreadable = 0
    size = image_size_pair(network.image_size)
    resize = CLIPMaskPreprocess(size)
    for pair in pairs:
        try:
            image = read_image(pair["image"], preset)
            label = read_label(pair["label"], image)
        except UnreadableInputError as error:
            logger.warning(f"A labelled image is left out: {error}")
            unreadable += 1
            continue
        images += 1
        normal += int(not label.any())
        slices, masks = labelled_slices(image, label, inferer.slice_axis)
        chosen = representative_slices(masks, max_slices)
        slices, masks = slices[chosen], masks[chosen]
        for start in range(0, len(slices), _BATCH):
            batch = slices[start : start + _BATCH].to(network.clip.logit_scale.device).expand(-1, 3, -1, -1)
            with torch.no_grad():
                encoded, patches = network.encode_image(clip_normalize_resize(batch, size))
            global_features.append(encoded.cpu())
            patch_features.append(torch.stack(patches, dim=1).cpu())
        labels += [torch.as_tensor(resize(mask)) for mask in masks]
        image_labels.append(masks.flatten(1).any(dim=1).float())
    if not labels:
        raise ValueError(
            f"There is no final label to tune the prompts on ({unreadable} cannot be read): save some labels first, "
            "anomalous and normal ones."
        )
    return LabelledSlices(
        torch.cat(global_features),
        torch.cat(patch_features),
        torch.stack(labels),
        torch.cat(image_labels),
        images,
        normal,
        unreadable,
    )
