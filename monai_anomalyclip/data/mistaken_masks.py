# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Masks, segmentations and pictures of results that lie among the images, and would be scored like these."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["mask_words", "note_on_values"]

_WORDS = frozenset(
    (
        *("mask", "masks", "seg", "segm", "segs", "segmentation", "segmentations", "label", "labels", "labelmap", "gt"),
        *("groundtruth", "truth", "annotation", "annotations", "annotated", "roi", "rois", "contour", "contours"),
        *("overlay", "overlays", "heat", "heatmap", "heatmaps"),
    )
)
_NOTE = "It has no more values than a mask has: if it is one, leave it out with --exclude."
_LABELS = 20  # of a segmentation, at most
_WHITES = (1, 255)


def mask_words(path: PurePath) -> frozenset[str]:
    """The words in a file's path below its input folder that speak of a mask, or of a picture of results.

    Example:
        >>> sorted(mask_words(PurePath("masks/case7_Segmentation.png")))
        ['masks', 'segmentation']
    """
    return _WORDS.intersection(re.split(r"[\W\d_]+", path.as_posix().lower()))


def note_on_values(values: npt.NDArray[Any]) -> str:
    """A sentence if a picture is black and white alone (1 or 255), or a volume 0 and a few small whole numbers.

    Args:
        values: as stored: uint8 of a picture, or float32 of a volume.
    """
    flat = values.reshape(-1)
    if flat.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(flat, minlength=256))
        return _NOTE if len(found) == 2 and found[0] == 0 and found[1] in _WHITES else ""
    few = flat[:: len(flat) // 2**12 | 1]
    if not np.isfinite(few).all() or (few != np.rint(few)).any():
        return ""
    levels = np.unique(flat[:: len(flat) // 2**20 | 1])
    whole = bool((levels == np.rint(levels)).all())
    return _NOTE if whole and 2 <= len(levels) <= _LABELS and levels[0] == 0 else ""
