# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The bank: patch features of normal images, which of them are kept, and the distance to the nearest one.

Source: PatchCore (Roth et al., CVPR 2022), equation 6, with the mean of the 5 % largest distances as an image's score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MemoryBank", "image_score"]

LARGEST_SHARE = 0.05
"""The share of an image's patches, the farthest, whose mean distance is the image's score."""

_BLOCK = 8192  # patches of the bank that are compared at a time


def image_score(distances: Tensor) -> Tensor:
    """Mean of the 5 % largest patch distances.

    Args:
        distances: (..., patches).

    Returns:
        (...), one score per image.
    """
    count = max(1, round(LARGEST_SHARE * distances.shape[-1]))
    return distances.topk(count, dim=-1).values.mean(-1)


@dataclass
class MemoryBank:
    """Patch features of normal images as float16: of some images all of them, of the others a few.

    Images that are kept whole can themselves be compared with the others, which is what calibrates scores; the others
    only add to what counts as normal.

    Attributes:
        whole: (w, P, C) float16, all P patches of w images.
        thin: (T, C) float16, patches of other images.
        whole_groups: (w,) number of the group, such as the patient, of each of the images.
        thin_groups: (T,) likewise, of each patch.
        scale: what distances are divided by, so that they lie in [0, 1].
    """

    whole: Tensor
    thin: Tensor
    whole_groups: Tensor
    thin_groups: Tensor
    scale: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.whole.device

    def to(self, device: torch.device | str) -> MemoryBank:
        """A copy on another device; itself where it is there already."""
        return MemoryBank(
            self.whole.to(device),
            self.thin.to(device),
            self.whole_groups.to(device),
            self.thin_groups.to(device),
            scale=self.scale,
        )

    def nearest(self, features: Tensor, without_group: int | None = None) -> tuple[Tensor, Tensor]:
        """Distances between the patches of an image and the bank, both ways.

        Args:
            features: (P, C) of the image, on any device; rounded to float16, as the bank is.
            without_group: a group whose patches do not count, such as the patient of the image.

        Returns:
            (P,) distance of each patch to the nearest of the bank, infinite when nothing counts; and (w, P) distance
            of each patch of each whole image to the nearest of this image. Both in [0, 1], float32 on the CPU.
        """
        forth, back = self.nearest_of_each(features)
        found = forth.new_full((len(features),), math.inf)
        kept = forth if without_group is None else forth[self.whole_groups.cpu() != without_group]
        if len(kept):
            found = kept.amin(0)
        if len(self.thin):
            found = torch.minimum(found, self._nearest_thin(features, without_group))
        return found, back

    def nearest_of_each(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distances between the patches of an image and those of each whole image, both ways.

        Args:
            features: (P, C) of the image.

        Returns:
            (w, P) of each patch of the image to the nearest of each whole image; and (w, P) of each patch of each
            whole image to the nearest of this image. float32 on the CPU.
        """
        queries, lengths = self._queries(features)
        count, patches, width = self.whole.shape
        forth = torch.empty(count, len(queries), device=self.device)
        back = torch.empty(count, patches, device=self.device)
        step = max(1, _BLOCK // max(1, patches))
        for start in range(0, count, step):
            block = self.whole[start : start + step]
            squared = _squared(queries, lengths, block.reshape(-1, width)).reshape(len(queries), len(block), patches)
            forth[start : start + step] = squared.amin(2).T
            back[start : start + step] = squared.amin(0)
        return self._distance(forth), self._distance(back)

    def _nearest_thin(self, features: Tensor, without_group: int | None) -> Tensor:
        queries, lengths = self._queries(features)
        found = torch.full((len(queries),), math.inf, device=self.device)
        for start in range(0, len(self.thin), _BLOCK):
            squared = _squared(queries, lengths, self.thin[start : start + _BLOCK])
            if without_group is not None:
                own = self.thin_groups[start : start + _BLOCK] == without_group
                squared = squared.masked_fill(own, math.inf)
            found = torch.minimum(found, squared.amin(1))
        return self._distance(found)

    def _queries(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features as the bank has them, rounded to float16, and their squared lengths."""
        queries = features.to(self.device).half().float()
        return queries, queries.square().sum(1)

    def leave_one_out(self) -> Tensor:
        """Distance of each patch of each whole image to the nearest patch of another group, (w, P) float32 on the CPU.

        Infinite where there is no other group.
        """
        # Written in place: rows that are kept among large temporary blocks would fragment the heap to gigabytes.
        rows = torch.empty(self.whole.shape[:2])
        for row, image, group in zip(rows, self.whole, self.whole_groups, strict=True):
            row.copy_(self.nearest(image, int(group))[0])
        return rows

    def _distance(self, squared: Tensor) -> Tensor:
        return (squared.clamp(min=0).sqrt() / self.scale).cpu()


def _squared(queries: Tensor, lengths: Tensor, block: Tensor) -> Tensor:
    """Squared Euclidean distances (Q, N) between float32 queries and a float16 block."""
    others = block.float()
    squared = torch.addmm(others.square().sum(1)[None], queries, others.T, alpha=-2)
    return squared.add_(lengths[:, None])
