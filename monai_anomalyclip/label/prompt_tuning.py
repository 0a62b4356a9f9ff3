# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Re-tune the prompts on what annotators corrected: seconds, since nothing else is learned.

Labels of volumes have many slices without an anomaly, where the Dice term of the glocal loss is at its worst unless
nothing at all is predicted: minimising it there ends in maps of zeros. Normal slices therefore count with the
cross entropy of the image and the focal term of their pixels only.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from monai_anomalyclip.label.training_set import LabelledSlices
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, Logits

__all__ = ["TuningReport", "tune_prompts"]


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
