# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""This package's own reference of normal images, as a row beside PatchCore and RD4AD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from monai_anomalyclip.experiments.fullshot.network import FullShotNetwork
from monai_anomalyclip.reference import NormalReference, make_encoder

__all__ = ["OwnNormals"]


class OwnNormals(FullShotNetwork):
    """Distance to the nearest patches of a class's normal images, as the bundle ``own_normals`` has it.

    It needs neither anomalib nor a file of weights: the encoder comes as a package.

    Args:
        encoder: name of the encoder, see :func:`~monai_anomalyclip.reference.make_encoder`.
        image_size: see :class:`~monai_anomalyclip.experiments.fullshot.network.FullShotNetwork`.
        seed: of the choice of patches where there are more images than a bank holds.

    Raises:
        ImportError: the encoder's package is not installed.

    Example::

        network = OwnNormals()
        network.fit(normal_images)
        prediction = network.predict(batch)
    """

    def __init__(self, encoder: str = "efficientnet-lite0", *, image_size: int = 288, seed: int = 0) -> None:
        super().__init__(image_size)
        self.model = make_encoder(encoder)
        self.seed = seed
        self.reference: NormalReference | None = None

    def fit(self, images: Sequence[Tensor], *, batch_size: int = 16, progress: bool = True) -> dict[str, Any]:
        """Build the bank.

        Returns:
            ``k``, the number of normals, and ``patches``, how many are kept.

        Raises:
            ValueError: without images.
        """
        self.reference = NormalReference.build(
            list(images), encoder=self.model, seed=self.seed, batch_size=batch_size, progress=progress
        )
        described = self.reference.describe()
        return {name: described[name] for name in ("k", "patches")}

    def forward(self, image: Tensor, output: Literal["anomaly_map", "prediction"] = "anomaly_map") -> Any:
        """Compare a batch (B, 3, S, S) uint8; see :meth:`FullShotNetwork.forward`.

        Raises:
            ValueError: for another output, or before :meth:`fit`.
        """
        if output not in ("anomaly_map", "prediction"):
            raise ValueError(f"output='{output}' is not one of 'anomaly_map', 'prediction'.")
        if self.reference is None:
            raise ValueError("There are no normal images yet: call fit first.")
        with torch.no_grad():
            prediction = self.reference.predict(image)
        return prediction["anomaly_map"] if output == "anomaly_map" else prediction
