# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Re-tune the prompts on what annotators corrected, by the bundle's own training configuration.

Seconds, since nothing else is learned. It is what MONAI Label's own app does with the bundle; added are a look at the
loss before and after, and that nothing changes when it does not fall.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from monai_anomalyclip.bundles.shipped import bundle_parser
from monai_anomalyclip.label.bundle_entries import labelled_parts
from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.networks import AnomalyCLIP

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
    model: AnomalyModel,
    pairs: Iterable[Mapping[str, str | os.PathLike[str]]],
    *,
    device: str | torch.device = "cpu",
    preset: str = "auto",
    **settings: Any,
) -> tuple[AnomalyCLIP, TuningReport]:
    """Tune a copy of the prompts in use as ``configs/train.json`` of the model's bundle says.

    Args:
        model: whose prompts are the start; it stays as it is.
        pairs: ``{"image": path, "label": path}``, as a MONAI Label datastore lists them.
        device: where it runs.
        preset: intensity preset of the images; that of inference.
        settings: entries of the configuration to change: ``max_epochs``, ``learning_rate``, ``batch_size``,
            ``lambda_local``, ``seed``, ...

    Returns:
        the network with the tuned prompts, and what was done; when the loss did not fall (or is NaN), the prompts are
        those of before.

    Raises:
        ValueError: there is no label that can be read, or a setting is not positive.

    Example::

        network, report = tune_prompts(model, [{"image": "a.nii.gz", "label": "a_label.nii.gz"}], max_epochs=15)
        model.save_prompts(network)
    """
    for name in ("max_epochs", "learning_rate", "batch_size"):
        if name in settings and not settings[name] > 0:
            raise ValueError(f"{name} must be positive, got {settings[name]}.")
    begun = time.perf_counter()
    parts = labelled_parts(pairs, preset, model.inferer.slice_axis)
    if not parts.entries:
        raise ValueError(
            f"There is no final label to tune the prompts on ({parts.unreadable} cannot be read): save some labels "
            "first, anomalous and normal ones."
        )
    network = model.network(device)
    start = {key: value.detach().clone() for key, value in network.prompts.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        fixed = {
            "output_dir": Path(folder),
            "model_dir": Path(folder),
            "network_def": network,
            "device": str(device),
            "precision": model.precision,
            "resume": False,
            "train#dataset#data": parts.entries,
            "train#dataset#progress": False,
            "validate#dataset#data": [],
        }
        parser = bundle_parser(model.bundle / "configs" / "train.json", **{**settings, **fixed})
        # A server or a notebook has no terminal to draw a bar in.
        parser["train#handlers"] = [
            handler for handler in parser["train#handlers"] if handler.get("_target_") != "ignite.handlers.ProgressBar"
        ]
        trainer = parser.get_parsed_content("train#trainer")
        network = parser.get_parsed_content("model")
        before = _mean_loss(trainer)
        trainer.run()
        after = _mean_loss(trainer)
        parser.get_parsed_content("summary_writer").close()
    improved = after < before
    if not improved:
        network.prompts.load_state_dict(start)
    report = TuningReport(
        parts.images,
        parts.normal_images,
        parts.unreadable,
        len(parts.entries),
        parts.anomalous,
        before,
        after,
        round(time.perf_counter() - begun, 2),
        improved,
    )
    return network, report


@torch.no_grad()
def _mean_loss(trainer: Any) -> float:
    """Loss of all slices, always in the same batches: the trainer shuffles them anew for each epoch."""
    trainer.data_loader.sampler.set_epoch(0)
    losses, sizes = [], []
    with trainer.network.fixed_prompts():
        for batch in trainer.data_loader:
            inputs, target, _, options = trainer.prepare_batch(batch, trainer.state.device)
            losses.append(trainer.loss_function(trainer.inferer(inputs, trainer.network, **options), target))
            sizes.append(len(target["image_label"]))
    # Asked for at the end: to ask after each batch would make the host wait for a GPU.
    found: list[float] = torch.stack(losses).tolist()
    return sum(loss * size for loss, size in zip(found, sizes, strict=True)) / sum(sizes)
