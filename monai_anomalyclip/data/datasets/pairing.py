# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find the mask of each image by its name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import Entry, named, stem

__all__ = ["anomalous_entries", "pair_masks"]

_ENDING = re.compile(r"[ ._-]+(mask|segmentation|seg|label|lesion|gt|ground_?truth)$")
_Key = Callable[[Path], str]


def pair_masks(images: Sequence[Path], masks: Sequence[Path], where: str) -> tuple[dict[Path, Path], list[Path]]:
    """Find the mask of each image by its name, never by its place in the list.

    The same file name counts first, then the same name without suffix, then the same without regard to case, then a
    mask's name without an ending such as ``_mask``, ``_segmentation`` or ``_label``. Two ways to write an accented
    letter in Unicode (NFC, and NFD as on a Mac) are one.

    Args:
        images: pictures of one folder.
        masks: masks of one folder.
        where: the folder in words, for the error.

    Returns:
        the mask of each image that has one, and the masks that are left over.

    Raises:
        ValueError: an image has several masks or several images one, or no image at all has a mask though there
            are some.
    """
    found: dict[Path, Path] = {}
    for of_image, of_mask in _KEYS:
        by_key: dict[str, list[Path]] = defaultdict(list)
        for mask in masks:
            by_key[of_mask(mask)].append(mask)
        for image in images:
            candidates = by_key.get(of_image(image), []) if image not in found else []
            if len(candidates) > 1:
                raise ValueError(f"In {where}, {image.name} may have any of the masks {named(candidates)}: keep one.")
            if candidates:
                found[image] = candidates[0]
    if images and masks and not found:
        raise ValueError(
            f"In {where}, no image has a mask of its name (images: {named(images, 2)}; masks: {named(masks, 2)}): name "
            "each mask as its image, with or without an ending such as _mask."
        )
    owner: dict[Path, Path] = {}
    for image, mask in found.items():
        if mask in owner:
            raise ValueError(f"In {where}, {owner[mask].name} and {image.name} would share the mask {mask.name}.")
        owner[mask] = image
    return found, [mask for mask in masks if mask not in owner]


def anomalous_entries(
    images: Sequence[Path], masks: Sequence[Path], class_name: str, where: str, normal: Sequence[Path] = ()
) -> tuple[list[Entry], list[str]]:
    """List anomalous images with their masks, and say what is left over.

    Args:
        images: pictures of one folder, all anomalous.
        masks: their masks, as far as there are any.
        class_name: class of the entries.
        where: the folder in words, for notes and errors.
        normal: normal images, which may have masks (empty ones) among these.

    Returns:
        one entry per image, and sentences about images without a mask and masks without an image.

    Raises:
        ValueError: as for :func:`pair_masks`.
    """
    paired, left_over = pair_masks(images, masks, where)
    expected = {_folded(image) for image in normal}
    left_over = [mask for mask in left_over if not {_folded(mask), _without_ending(mask)} & expected]
    without = [image for image in images if image not in paired]
    notes = []
    if without:
        notes.append(f"{where}: {len(without)} of {len(images)} anomalous images have no mask ({named(without)}).")
    if left_over:
        notes.append(f"{where}: {len(left_over)} masks belong to no image ({named(left_over)}).")
    return [Entry(image, 1, class_name, paired.get(image)) for image in images], notes


def _name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.name)


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", stem(path))


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", _stem(path).casefold())


def _without_ending(path: Path) -> str:
    return _ENDING.sub("", _folded(path))


# How the name of an image and that of its mask are compared, the strictest way first.
_KEYS: tuple[tuple[_Key, _Key], ...] = (
    (_name, _name),
    (_stem, _stem),
    (_folded, _folded),
    (_folded, _without_ending),
)
