# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which image is labelled next, by scores and by a short vector that tells images apart, stored with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = [
    "Candidate",
    "DescribedNetwork",
    "highest_score",
    "most_diverse",
    "most_uncertain",
    "rested",
    "short_descriptor",
]

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

    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._highest: Tensor | None = None
        self._features: Tensor | None = None

    @property
    def features(self) -> Tensor | None:
        """(D,) of that slice, on the CPU; None before the first."""
        return None if self._features is None else self._features.float().cpu()

    def fixed_prompts(self) -> AbstractContextManager[None]:
        """As the network's own: within it the text side is encoded once."""
        fixed: AbstractContextManager[None] = self.network.fixed_prompts()
        return fixed

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """As the network's own, for square images (B, 3, S, S); the encoder runs once."""
        global_features, patch_features = self.network.encode_image(image)
        encoded = {"global_features": global_features, "patch_features": torch.stack(patch_features, dim=1)}
        prediction: dict[str, Tensor] = self.network(encoded, output="prediction")
        # Compared on the device: to ask for a number here would make the host wait for each batch.
        score, index = prediction["anomaly_score"].max(dim=0)
        features = global_features.index_select(0, index[None])[0]
        if self._highest is None or self._features is None:
            self._highest, self._features = score, features
        else:
            higher = score > self._highest
            self._highest = torch.where(higher, score, self._highest)
            self._features = torch.where(higher, features, self._features)
        return prediction


@dataclass(frozen=True)
class Candidate:
    """What is known of an image without a final label.

    Attributes:
        name: the image's id.
        score: anomaly score in [0, 1]; None when it was not scored (yet).
        descriptor: feature vector for telling images apart; empty when unknown.
        offered: when it was last offered for labelling, in seconds since the epoch; 0 for never.
    """

    name: str
    score: float | None = None
    descriptor: Sequence[float] = ()
    offered: float = 0.0


def rested(candidates: Sequence[Candidate], now: float, pause: float = 3600.0) -> list[Candidate]:
    """Those that were not offered within the last `pause` seconds, so that annotators do not get the same image.

    When all of them were, the one whose turn is longest ago.
    """
    free = [candidate for candidate in candidates if now - candidate.offered >= pause]
    if free or not candidates:
        return free
    return [min(candidates, key=lambda candidate: (candidate.offered, candidate.name))]


def highest_score(candidates: Sequence[Candidate]) -> list[tuple[Candidate, float | None]]:
    """Highest anomaly score first, each with its score; images that were not scored come last, by name."""
    return [(candidate, candidate.score) for candidate in _sorted(candidates, {c.name: c.score for c in candidates})]


def most_uncertain(candidates: Sequence[Candidate], threshold: float = 0.5) -> list[tuple[Candidate, float | None]]:
    """Score nearest to the threshold first, each with its uncertainty.

    Args:
        candidates: what to rank.
        threshold: in (0, 1), of the image score: the calibrated one where there is one.

    Returns:
        candidates with the uncertainty: 1 at the threshold, 0 at the farther end of [0, 1]; None when not scored.

    Raises:
        ValueError: the threshold is not in (0, 1).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"The threshold must lie between 0 and 1, got {threshold}.")
    widest = max(threshold, 1 - threshold)
    uncertainty = {
        candidate.name: None if candidate.score is None else 1 - abs(candidate.score - threshold) / widest
        for candidate in candidates
    }
    return [(candidate, uncertainty[candidate.name]) for candidate in _sorted(candidates, uncertainty)]


def most_diverse(
    candidates: Sequence[Candidate], labelled: Sequence[Sequence[float]]
) -> list[tuple[Candidate, float | None]]:
    """Farthest-point order: each next image is the one least like all that are labelled or come before it.

    Distance is 1 - cosine of the descriptors, that of the nearest neighbour counts. Without any labelled image the
    highest score starts.

    Source: Sener, O., Savarese, S. Active Learning for Convolutional Neural Networks: A Core-Set Approach. ICLR 2018
    (k-centre greedy).

    Args:
        candidates: what to rank.
        labelled: descriptors of the images that have their final label; empty ones are passed over.

    Returns:
        candidates with the distance at their turn; None for the first without any labelled image, and for those
        without a descriptor, which come last.
    """
    known = [candidate for candidate in _highest_first(candidates) if len(candidate.descriptor)]
    unknown = [(candidate, None) for candidate in _highest_first(candidates) if not len(candidate.descriptor)]
    if not known:
        return list(unknown)
    rows = _unit_rows([candidate.descriptor for candidate in known])
    references = [row for row in labelled if len(row) == rows.shape[1]]
    ranked: list[tuple[Candidate, float | None]] = []
    if references:
        nearest = (1 - rows @ _unit_rows(references).T).min(axis=1)
    else:
        nearest = 1 - rows @ rows[0]
        ranked.append((known[0], None))
    left = set(range(len(known))) - ({0} if ranked else set())
    while left:
        chosen = max(sorted(left), key=lambda index: float(nearest[index]))
        ranked.append((known[chosen], float(nearest[chosen])))
        left.remove(chosen)
        nearest = np.minimum(nearest, 1 - rows @ rows[chosen])
    return ranked + list(unknown)


def _highest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates of :func:`highest_score`, without their scores."""
    return [candidate for candidate, _ in highest_score(candidates)]


def _sorted(candidates: Sequence[Candidate], values: Mapping[str, float | None]) -> list[Candidate]:
    def key(candidate: Candidate) -> tuple[bool, float, str]:
        value = values[candidate.name]
        return value is None, -(value or 0.0), candidate.name

    return sorted(candidates, key=key)


def _unit_rows(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    matrix = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(lengths, 1e-12))
