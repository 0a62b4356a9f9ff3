# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Re-tune the prompts on what annotators corrected: seconds, since nothing else is learned.

Labels of volumes have many slices without an anomaly, where the Dice term of the glocal loss is at its worst unless
nothing at all is predicted: minimising it there ends in maps of zeros. Normal slices therefore count with the
cross entropy of the image and the focal term of their pixels only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.label.label_files import MAX_SLICES, labelled_slices, read_label, representative_slices
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, Logits
from monai_anomalyclip.transforms.clip_preprocess import CLIPMaskPreprocess, clip_normalize_resize, image_size_pair

__all__ = ["LabelledSlices", "TuningReport", "encode_labelled", "tune_prompts"]

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

    Of a volume :func:`~monai_anomalyclip.label.label_files.representative_slices` are taken.

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


@dataclass(frozen=True)
class TuningReport:
    """What a tuning did.

    Attributes:
        images: labelled images.
        normal_images: how many of them have an empty label.
        unreadable: labelled images that were left out.
        slices: slices of the images.
        anomalous_slices: how many of them show an anomaly.
        loss_before: loss over all slices with the prompts it started from.
        loss_after: the same with the tuned prompts.
        seconds: duration.
        improved: whether the loss fell; if not, the prompts are as they were.
    """

    images: int
    normal_images: int
    unreadable: int
    slices: int
    anomalous_slices: int
    loss_before: float
    loss_after: float
    seconds: float
    improved: bool

    def to_dict(self) -> dict[str, Any]:
        """All fields, fit for JSON."""
        return asdict(self)


def tune_prompts(
    network: AnomalyCLIP,
    data: LabelledSlices,
    *,
    max_epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 8,
    lambda_local: float = 4.0,
    seed: int = 0,
) -> TuningReport:
    """Tune a network's prompts in place, from where they are, with the optimiser of the bundles.

    Args:
        network: whose prompts are tuned, on its own device; each batch is moved there.
        data: encoded slices.
        max_epochs: passes over the slices.
        learning_rate: of Adam.
        batch_size: slices per step.
        lambda_local: weight of the pixel terms (see :class:`~monai_anomalyclip.losses.GlocalLoss`).
        seed: of the order of the slices.

    Returns:
        what was done; when the loss did not fall (or is NaN), the prompts are those of before.

    Raises:
        ValueError: an argument is not positive.
    """
    for name, value in (("max_epochs", max_epochs), ("learning_rate", learning_rate), ("batch_size", batch_size)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}.")
    begun = time.perf_counter()
    loss = GlocalLoss(lambda_local)
    start = {key: value.detach().clone() for key, value in network.prompts.state_dict().items()}
    before = _mean_loss(network, data, loss, batch_size)
    optimizer = torch.optim.Adam(network.prompts.parameters(), lr=learning_rate, betas=(0.5, 0.999))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(max_epochs):
        for index in torch.split(torch.randperm(len(data.image_label), generator=generator), batch_size):
            optimizer.zero_grad()
            _loss_of(network, data, loss, index).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    after = _mean_loss(network, data, loss, batch_size)
    improved = after < before
    if not improved:
        network.prompts.load_state_dict(start)
    return TuningReport(
        data.images,
        data.normal_images,
        data.unreadable,
        len(data.image_label),
        int(data.image_label.sum()),
        before,
        after,
        round(time.perf_counter() - begun, 2),
        improved,
    )


def _loss_of(network: AnomalyCLIP, data: LabelledSlices, loss: GlocalLoss, index: torch.Tensor) -> torch.Tensor:
    device = network.clip.logit_scale.device
    features = {
        "global_features": data.global_features[index].to(device),
        "patch_features": data.patch_features[index].to(device),
    }
    logits: Logits = network(features, output="logits")
    anomalous, label = data.image_label[index].to(device), data.label[index].to(device)
    # Where an anomaly is too small for the network's size, what is known is the image's label only.
    target = {"image_label": anomalous, "label": label, "has_label": anomalous * label.flatten(1).amax(dim=1)}
    value: torch.Tensor = loss(logits, target)
    return value + loss.lambda_local * _focal_of_normal(logits, 1 - anomalous)


def _focal_of_normal(logits: Logits, normal: torch.Tensor) -> torch.Tensor:
    """Focal term (gamma 2) of the patches of normal slices, which are to be normal; mean over the batch."""
    total = normal.new_zeros(())
    for layer in logits["patch_logits"]:
        abnormal = layer.softmax(dim=1)[:, 1]
        focal = -abnormal.square() * layer.log_softmax(dim=1)[:, 0]
        total = total + (normal * focal.flatten(1).mean(dim=1)).mean()
    return total


@torch.no_grad()
def _mean_loss(network: AnomalyCLIP, data: LabelledSlices, loss: GlocalLoss, batch_size: int) -> float:
    count = len(data.image_label)
    total = 0.0
    for index in torch.split(torch.arange(count), batch_size):
        total += float(_loss_of(network, data, loss, index)) * len(index)
    return total / count
