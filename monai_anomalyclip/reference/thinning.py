# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which patches of which normal images a bank of bounded size keeps.

The choice depends on the images and a seed alone, not on the order in which they came, and is nested: what a bank of
more images keeps of an image is a part of what a bank of fewer kept. So a bank that grows equals one that was built at
once.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Kept", "farthest_first", "how_many_to_keep", "random_order"]

_WHOLE_SHARE = (2, 3)  # of the capacity, for images of which all patches are kept, once not all images can be


@dataclass(frozen=True)
class Kept:
    """What is kept: the images whose patches all are, in order of rank, and how many patches of each image."""

    whole: tuple[int, ...]
    patches: tuple[int, ...]


def how_many_to_keep(digests: Sequence[bytes], groups: Sequence[bytes], patches: int, capacity: int, seed: int) -> Kept:
    """Share a capacity among images.

    While all images fit, all are kept whole. After that two thirds of the capacity hold whole images, first one of
    each group, then a second, and so on, so that no patient displaces another; what is left is shared equally by the
    other images.

    Args:
        digests: of the images, which decide by chance.
        groups: of the images.
        patches: of an image.
        capacity: in images.
        seed: of the chance.
    """
    count = len(digests)
    if count <= capacity:
        return Kept(tuple(range(count)), (patches,) * count)
    chance = [hashlib.sha256(seed.to_bytes(8, "little", signed=True) + digest).digest() for digest in digests]
    turn = [0] * count
    seen: defaultdict[bytes, int] = defaultdict(int)
    for index in sorted(range(count), key=chance.__getitem__):
        turn[index] = seen[groups[index]]
        seen[groups[index]] += 1
    rank = sorted(range(count), key=lambda index: (turn[index], chance[index]))
    whole = capacity * _WHOLE_SHARE[0] // _WHOLE_SHARE[1]
    left = (capacity - whole) * patches
    each, rest = divmod(left, count - whole)
    kept = [0] * count
    for place, index in enumerate(rank):
        kept[index] = patches if place < whole else each
        if each == 0 and place >= whole:  # more images than patches that are left: the first ones give one each
            kept[index] = int(place - whole < rest)
    return Kept(tuple(rank[:whole]), tuple(kept))


def random_order(patches: int, digest: bytes, seed: int) -> Tensor:
    """A random order of an image's patches, that of the seed and the image's digest."""
    words = np.frombuffer(hashlib.sha256(digest).digest()[:16], dtype=np.uint32)
    generator = np.random.default_rng([seed & 0xFFFFFFFF, *words.tolist()])
    return torch.from_numpy(generator.permutation(patches))


def farthest_first(features: Tensor, digest: bytes, seed: int) -> Tensor:
    """An order of an image's patches each of which is the farthest from those before it: a greedy coreset.

    Source: PatchCore, algorithm 1, here within an image, for over all images it takes a quadratic time.

    Args:
        features: (P, C).
        digest: of the image; it decides, with the seed, which patch is the first.
        seed: see there.
    """
    values = features.float()
    chosen = [int(random_order(len(values), digest, seed)[0])]
    nearest = (values - values[chosen[0]]).square().sum(1)
    nearest[chosen[0]] = -1
    for _ in range(len(values) - 1):
        following = int(nearest.argmax())
        chosen.append(following)
        nearest = torch.minimum(nearest, (values - values[following]).square().sum(1))
        nearest[chosen] = -1
    return torch.tensor(chosen)
