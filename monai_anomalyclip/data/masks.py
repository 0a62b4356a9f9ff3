# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read anomaly masks; and tell what lies among the images and looks like a mask, which would be scored like these."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.input_files import is_nifti

if TYPE_CHECKING:
    from monai_anomalyclip.data.nifti import NiftiVolume

__all__ = [
    "marked",
    "mask_words",
    "note_on_values",
    "read_mask",
]

# Compression leaves faint rings around the regions of a JPEG mask: only the bright half counts.
_JPEG_THRESHOLD = 127


def read_mask(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a mask as (H, W), or (X, Y, Z) from NIfTI, uint8 of 0 (normal) and 1 (anomaly).

    Every colour but black is anomaly, whatever it encodes (0/1, 0/255, palettes, one colour per class, 16-bit
    labels); transparent pixels are normal. In JPEG files a channel must be above 127.

    Raises:
        UnreadableInputError: the file cannot be read (see :func:`monai_anomalyclip.data.frames.read_frame` and
            :func:`monai_anomalyclip.data.nifti.read_volume`).
    """
    if is_nifti(path):
        from monai_anomalyclip.data.nifti import read_volume  # each reader is imported for what it reads

        return marked(read_volume(path))
    from monai_anomalyclip.data.frames import open_picture, to_rgb

    picture = open_picture(path)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return np.asarray(np.asarray(picture) != 0, dtype=np.uint8)  # 8 bits would lose the small label numbers
    threshold = _JPEG_THRESHOLD if picture.format in ("JPEG", "MPO") else 0
    return np.asarray(to_rgb(picture, Path(path).name).max(axis=-1) > threshold, dtype=np.uint8)


def marked(volume: NiftiVolume) -> npt.NDArray[np.uint8]:
    """A NIfTI mask as (X, Y, Z) uint8 of 0 and 1: every value but 0 and NaN is anomaly."""
    return np.asarray(np.nan_to_num(volume.data) != 0, dtype=np.uint8)


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
    flat = values.ravel(order="K")  # as it lies in memory: no copy
    if flat.dtype == np.uint8:
        if not np.isin(flat[:: len(flat) // 2**12 | 1], (0, *_WHITES)).all():  # as of most pictures a few pixels tell
            return ""
        found = np.flatnonzero(np.bincount(flat, minlength=256))
        return _NOTE if len(found) == 2 and found[0] == 0 and found[1] in _WHITES else ""
    few = flat[:: len(flat) // 2**12 | 1]
    if not np.isfinite(few).all() or (few != np.rint(few)).any():
        return ""
    levels = np.unique(flat[:: len(flat) // 2**20 | 1])
    whole = bool((levels == np.rint(levels)).all())
    return _NOTE if whole and 2 <= len(levels) <= _LABELS and levels[0] == 0 else ""
