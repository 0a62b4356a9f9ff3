# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A reference grows: images are encoded and taken in; when they are too many, some patches are left out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_anomalyclip.reference.encoders import PatchEncoder
from monai_anomalyclip.reference.memory_bank import MemoryBank
from monai_anomalyclip.reference.normal_facts import NormalFacts
from monai_anomalyclip.reference.reference_file import ReferenceContent

__all__ = [
    "Kept",
    "Taken",
    "bank_of",
    "encode_alike",
    "farthest_first",
    "how_many_to_keep",
    "random_order",
    "take_in",
    "thin",
]

SLACK = 128
"""How many images more than the capacity are whole in memory before patches are left out."""

_WHOLE_SHARE = (2, 3)  # of the capacity, for images of which all patches are kept, once not all images can be


@dataclass
class Taken:
    """What became of the images that were given.

    Attributes:
        new: how many were taken in.
        known: how many were there already, by their content.
    """

    new: int = 0
    known: int = 0


def encode_alike(
    encoder: PatchEncoder, images: Iterable[tuple[Tensor, NormalFacts]], batch_size: int
) -> Iterator[tuple[Tensor, NormalFacts]]:
    """Features (P, C) float16 of images one after the other; neighbours of one size are encoded at once.

    When the images end in an error, those before it are still encoded.
    """
    waiting: list[tuple[Tensor, NormalFacts]] = []
    failure: Exception | None = None
    source = iter(images)
    while True:
        try:
            image, facts = next(source)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if waiting and (len(waiting) == batch_size or waiting[0][0].shape != image.shape):
            yield from _encoded(encoder, waiting)
            waiting = []
        waiting.append((image, facts))
    if waiting:
        yield from _encoded(encoder, waiting)
    if failure is not None:
        raise failure


def _encoded(encoder: PatchEncoder, images: list[tuple[Tensor, NormalFacts]]) -> Iterator[tuple[Tensor, NormalFacts]]:
    features = encoder(torch.stack([image for image, _ in images])).half().cpu()
    for one, (_, facts) in zip(features, images, strict=True):
        yield one.clone(), facts  # a view would keep the batch in memory


def take_in(content: ReferenceContent, features: Tensor, facts: NormalFacts) -> None:
    """Add one image, whole; what does not fit is left out every now and then, and by :func:`thin`."""
    content.whole = (*content.whole, len(content.facts))
    content.facts.append(facts)
    content.patches.append(features)
    content.leave_one_out = None
    if len(content.whole) > content.settings["capacity"] + SLACK:
        thin(content)


def thin(content: ReferenceContent) -> None:
    """Leave out what is over the capacity; without effect where nothing is."""
    settings = content.settings
    patches = max((len(content.patches[index]) for index in content.whole), default=0)
    kept = how_many_to_keep(
        [one.digest for one in content.facts],
        [one.group for one in content.facts],
        patches,
        settings["capacity"],
        settings["seed"],
    )
    held, wanted = set(content.whole), set(kept.whole)
    left: dict[int, Tensor] = {}
    for index, count in enumerate(kept.patches):
        if index in wanted:
            continue
        features = content.patches[index]
        if index in held:  # until now in the order of the picture
            digest = content.facts[index].digest
            order = (
                farthest_first(features, digest, settings["seed"])
                if settings["coreset"]
                else random_order(patches, digest, settings["seed"])
            )
            features = features[order[:count]]
        left[index] = features[:count]
    if left:
        # Copied at once: thousands of small copies between whole images that come and go would fragment the heap.
        parts = torch.split(torch.cat(list(left.values())), [len(one) for one in left.values()])
        for index, part in zip(left, parts, strict=True):
            content.patches[index] = part
    content.whole = kept.whole


def bank_of(content: ReferenceContent, encoder: PatchEncoder) -> MemoryBank:
    """The bank of a reference's patches, on the encoder's device."""
    numbers = group_numbers(content)
    whole = list(content.whole)
    others = sorted(set(range(len(content.facts))) - set(whole))
    counts = torch.tensor([len(content.patches[index]) for index in others], dtype=torch.int64)
    bank = MemoryBank(
        torch.stack([content.patches[index] for index in whole]),
        torch.cat([content.patches[whole[0]][:0], *(content.patches[index] for index in others)]),
        torch.tensor([numbers[index] for index in whole], dtype=torch.int64),
        torch.repeat_interleave(torch.tensor([numbers[index] for index in others], dtype=torch.int64), counts),
        scale=encoder.largest_distance,
    )
    return bank.to(encoder.device)


def group_numbers(content: ReferenceContent) -> list[int]:
    """The number of each image's group, in the order in which groups came."""
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(one.group, len(numbers)) for one in content.facts]


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
