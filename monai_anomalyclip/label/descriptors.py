# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A short vector per image that tells images apart, for choosing diverse ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["DescribedNetwork", "short_descriptor"]

_LENGTH = 32
_DECIMALS = 4


def short_descriptor(features: Tensor) -> list[float]:
    """Project a feature vector (D,) to 32 numbers that nearly keep the angles between images.

    The projection is random, but always the same for one D (Johnson-Lindenstrauss). The vector is short because it is
    kept with each image in the datastore's JSON file, which is written anew at every change.
    """
    vector = features.detach().cpu().double().numpy()
    basis = np.random.default_rng(0).standard_normal((len(vector), _LENGTH))
    projected = (vector / max(float(np.linalg.norm(vector)), 1e-12)) @ basis / np.sqrt(_LENGTH)
    return [round(float(value), _DECIMALS) for value in projected]


class DescribedNetwork(nn.Module):
    """A network that also remembers the image features of the slice with the highest score it has seen.

    Args:
        network: an :class:`~monai_anomalyclip.networks.AnomalyCLIP`.

    Attributes:
        features: (D,) of that slice; None before the first.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.features: Tensor | None = None
        self._highest = -1.0

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """As the network's own, for square images (B, 3, S, S); the encoder runs once."""
        global_features, patch_features = self.network.encode_image(image)
        encoded = {"global_features": global_features, "patch_features": torch.stack(patch_features, dim=1)}
        prediction: dict[str, Tensor] = self.network(encoded, output="prediction")
        score, index = prediction["anomaly_score"].max(dim=0)
        if float(score) > self._highest:
            self._highest = float(score)
            self.features = global_features[int(index)].float().cpu()
        return prediction
