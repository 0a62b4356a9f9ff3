# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read anomaly masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.frames import open_picture, to_rgb
from monai_anomalyclip.data.input_files import is_nifti
from monai_anomalyclip.data.nifti import NiftiVolume, read_volume

__all__ = ["marked", "read_mask"]

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
        return marked(read_volume(path))
    picture = open_picture(path)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return np.asarray(np.asarray(picture) != 0, dtype=np.uint8)  # 8 bits would lose the small label numbers
    threshold = _JPEG_THRESHOLD if picture.format in ("JPEG", "MPO") else 0
    return np.asarray(to_rgb(picture, Path(path).name).max(axis=-1) > threshold, dtype=np.uint8)


def marked(volume: NiftiVolume) -> npt.NDArray[np.uint8]:
    """A NIfTI mask as (X, Y, Z) uint8 of 0 and 1: every value but 0 and NaN is anomaly."""
    return np.asarray(np.nan_to_num(volume.data) != 0, dtype=np.uint8)
