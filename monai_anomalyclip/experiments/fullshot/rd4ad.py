# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""RD4AD (Deng and Li, CVPR 2022): a decoder learns to reproduce a frozen encoder's features of normal images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import Tensor

from monai_anomalyclip.experiments.fullshot.network import (
    FullShotNetwork,
    anomalib_needed,
    fill_backbone,
)

__all__ = ["RD4AD"]

_LAYERS = ("layer1", "layer2", "layer3")


class RD4AD(FullShotNetwork):
    """A bottleneck and a decoder, trained on normal images to give back what the frozen encoder saw.

    The map is the sum over three stages of one minus the cosine similarity of encoder and decoder (equation 1),
    upsampled and smoothed (sigma 4), the score its maximum (section 3.4). Trained as by the authors' released code:
    Adam, learning rate 0.005, betas (0.5, 0.999), the cosine over each stage as a whole.

    Source: "Anomaly Detection via Reverse Distillation from One-Class Embedding" (CVPR 2022), as in
    :class:`anomalib.models.image.reverse_distillation.torch_model.ReverseDistillationModel`.

    Args:
        backbone, weights, image_size: see :class:`~monai_anomalyclip.experiments.fullshot.network.FullShotNetwork`.
        epochs: of the training.
        learning_rate: of Adam.

    Example::

        network = RD4AD(weights="wide_resnet50_2.safetensors", epochs=100)
        network.fit(normal_images)
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        *,
        weights: str | Path | None,
        image_size: int = 256,
        epochs: int = 200,
        learning_rate: float = 0.005,
    ) -> None:
        super().__init__(image_size, backbone)
        if epochs < 1:
            raise ValueError(f"epochs={epochs} must be at least 1.")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate={learning_rate} must be positive.")
        with anomalib_needed():
            from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
            from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
            from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.loss = ReverseDistillationLoss()
        self.model = ReverseDistillationModel(
            backbone=backbone,
            input_size=(image_size, image_size),
            layers=list(_LAYERS),
            anomaly_map_mode=AnomalyMapGenerationMode.ADD,
            pre_trained=False,
        ).eval()
        fill_backbone(self.model.encoder.feature_extractor, backbone, weights)

    def fit(self, images: Sequence[Tensor], *, batch_size: int = 16, progress: bool = True) -> dict[str, Any]:
        """Train bottleneck and decoder; going on from where they are.

        Returns:
            ``training_loss``, the mean loss of each epoch.

        Raises:
            ValueError: without images.
        """
        if not images:
            raise ValueError("RD4AD needs at least one normal image.")
        learned = [*self.model.decoder.parameters(), *self.model.bottleneck.parameters()]
        trainer = SupervisedTrainer(
            device=self.mean.device,
            max_epochs=self.epochs,
            train_data_loader=DataLoader(images, batch_size=batch_size, shuffle=True, num_workers=0),
            network=self.model,
            optimizer=torch.optim.Adam(learned, lr=self.learning_rate, betas=(0.5, 0.999)),
            loss_function=lambda features, _: self.loss(*features),
            prepare_batch=lambda batch, *_, **__: (self.normalize(batch), None),
            decollate=False,
        )
        losses: list[list[float]] = []
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: losses.append([]))
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: losses[-1].append(engine.state.output["loss"].item())
        )
        if progress:
            shown = ProgressBar(desc="Training RD4AD")
            shown.attach(trainer, output_transform=lambda output: {"loss": output["loss"].item()})
        try:
            trainer.run()
        finally:
            self.model.eval()
        return {"training_loss": [sum(epoch) / len(epoch) for epoch in losses]}
