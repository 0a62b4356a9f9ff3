# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Mutual scoring of unlabelled images: what an image shares with few others is unusual among them.

Sources: MuSc (Li et al., ICLR 2024), its mutual scoring and interval average; for volumes CS3F (Le-Gia, 2026), tokens
pooled over neighbouring slices and matched from coarse to fine. Different here: one neighbourhood of 3 x 3 patches, an
image's score is the mean of its 5 % highest, no re-scoring between images, and volumes are cut along one axis.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["coarse_slabs", "interval_average", "nearest_of_volume", "nearest_patches", "pooled_slices"]

LOWEST_SHARE = 0.3
"""The share of the other images, those in which a patch has its nearest likeness, whose mean distance is its score."""

SLAB = 4
"""Slices that are pooled to one where volumes are matched."""

MATCHES = 2
"""Slabs of another volume that a slab's slices are compared with, the most alike."""

_BLOCK = 8192  # patches that are compared at a time


def nearest_patches(queries: Tensor, others: Tensor) -> Tensor:
    """Distance of each patch to the nearest of another image, in blocks.

    Args:
        queries: (Q, C).
        others: (N, C).

    Returns:
        (Q,) float32.
    """
    wanted = queries.float()
    lengths = wanted.square().sum(1, keepdim=True)
    found = torch.full((len(wanted),), torch.inf, device=wanted.device)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK].to(wanted.device).float()
        squared = torch.addmm(block.square().sum(1)[None], wanted, block.T, alpha=-2).add_(lengths)
        found = torch.minimum(found, squared.amin(1))
    return found.clamp(min=0).sqrt()


def interval_average(nearest: Iterable[Tensor], share: float = LOWEST_SHARE) -> Tensor:
    """Score of each patch: the mean over the others in which it has its nearest likeness.

    Args:
        nearest: (...) distances to each of the other images, one tensor for each.
        share: of the others, the lowest ones, at least one.

    Returns:
        (...).

    Raises:
        ValueError: there is no other image.
    """
    rows = list(nearest)
    if not rows:
        raise ValueError("There is no other image to compare with.")
    count = max(1, round(share * len(rows)))
    return torch.stack(rows).topk(count, dim=0, largest=False).values.mean(0)


def pooled_slices(slices: Tensor) -> Tensor:
    """Tokens of a volume: each slice's patches, with half their weight those of the slices before and behind it.

    Args:
        slices: (Z, P, C).
    """
    padded = torch.cat([slices[:1], slices, slices[-1:]]).float()
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def coarse_slabs(slices: Tensor, size: int = SLAB) -> Tensor:
    """Means over slabs of neighbouring slices, (ceil(Z / size), P, C); the last may be thinner."""
    return torch.stack([slab.float().mean(0) for slab in torch.split(slices, size)])


def nearest_of_volume(volume: Tensor, other: Tensor) -> Tensor:
    """Distance of each token of a volume to the nearest of another, which are looked for where slabs are alike.

    Args:
        volume: (Z, P, C) tokens (:func:`pooled_slices`).
        other: (Z', P, C) likewise.

    Returns:
        (Z, P) float32.
    """
    own, theirs = coarse_slabs(volume), coarse_slabs(other)
    slabs = torch.split(other, SLAB)
    rows = []
    for slab, slices in zip(own, torch.split(volume, SLAB), strict=True):
        alike = torch.stack([nearest_patches(slab, one).mean() for one in theirs])
        chosen = alike.topk(min(MATCHES, len(slabs)), largest=False).indices.tolist()
        matched = torch.cat([slabs[index].flatten(0, 1) for index in chosen])
        rows.append(nearest_patches(slices.flatten(0, 1), matched).reshape(len(slices), -1))
    return torch.cat(rows)
