# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read anomaly masks, and give items without one the mask their label implies."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from torch import Tensor

from monai_anomalyclip.data.frames import open_picture, to_rgb
from monai_anomalyclip.data.nifti import NiftiVolume, is_nifti, read_volume
from monai_anomalyclip.data.nifti_form import NO_FORM, distance_apart

__all__ = ["LoadMaskD", "LoadMaskDict", "LoadMaskd", "read_mask"]

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
        return _marked(read_volume(path))
    picture = open_picture(path)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return np.asarray(np.asarray(picture) != 0, dtype=np.uint8)  # 8 bits would lose the small label numbers
    threshold = _JPEG_THRESHOLD if picture.format in ("JPEG", "MPO") else 0
    return np.asarray(to_rgb(picture, Path(path).name).max(axis=-1) > threshold, dtype=np.uint8)


class LoadMaskd(MapTransform):
    """Load the mask of an item whose image is already loaded, and complete its labels.

    =====================  =====================  ==========================================
    mask path              ``image_label``        result
    =====================  =====================  ==========================================
    given                  given or absent        the mask; absent label taken from the mask
    absent, None or ``""``  0                     zeros (a normal image's mask is known)
    absent, None or ``""``  1                     zeros, with ``has_label`` 0: not to be used
    =====================  =====================  ==========================================

    The mask becomes a MetaTensor (1, H, W) or (1, X, Y, Z), uint8 of 0 and 1, with the image's affine. ``has_label``
    (int) says whether the mask is known, ``image_label`` (int) whether the image holds an anomaly.

    A NIfTI mask must lie where its image lies, by the affines of both; one whose file has none (neither sform nor
    qform) is laid on it voxel by voxel.

    Args:
        keys: the one key of the mask's path.
        image_key: key of the loaded image, (C, H, W) or (C, X, Y, Z).
        image_label_key: key of the image's label.
        has_label_key: key to write whether the mask is known.

    Raises:
        ValueError: more than one key.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        image_key: str = "image",
        image_label_key: str = "image_label",
        has_label_key: str = "has_label",
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if len(self.keys) != 1:
            raise ValueError(f"An item has one mask, got the keys {self.keys}.")
        self.image_key = image_key
        self.image_label_key = image_label_key
        self.has_label_key = has_label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its mask loaded.

        Raises:
            UnreadableInputError: the mask cannot be read.
            ValueError: the image is not loaded, the sizes or places differ, there is neither mask nor label, or they
                contradict.
        """
        item = dict(data)
        key = self.keys[0]
        image, path, label = item.get(self.image_key), item.get(key), item.get(self.image_label_key)
        if not isinstance(image, Tensor):
            raise ValueError(f"Load the image (key {self.image_key!r}) before its mask: use LoadInputd or LoadFramed.")
        meta: dict[str, Any] = {"spatial_shape": np.asarray(image.shape[1:])}
        if path:
            volume = read_volume(path) if is_nifti(path) else None
            mask = torch.from_numpy(read_mask(path) if volume is None else _marked(volume))[None]
            meta["filename_or_obj"] = str(path)
            anomalous = int(mask.any())
            self._check(Path(path).name, mask, image, None if label is None else int(label))
            if volume is not None and isinstance(image, MetaTensor):
                _check_place(Path(path).name, volume, image)
        elif label is None:
            raise ValueError(f"The item has neither a mask ({key!r}) nor {self.image_label_key!r}: give one of them.")
        else:
            mask = torch.zeros((1, *image.shape[1:]), dtype=torch.uint8)
            anomalous = int(label)
        item[key] = MetaTensor(mask, affine=image.affine if isinstance(image, MetaTensor) else None, meta=meta)
        item[self.has_label_key] = int(bool(path) or anomalous == 0)
        item[self.image_label_key] = anomalous
        return item

    def _check(self, name: str, mask: Tensor, image: Tensor, label: int | None) -> None:
        if mask.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"Mask {name!r} has size {tuple(mask.shape[1:])} but its image has {tuple(image.shape[1:])}: they must "
                "be drawn on the same grid."
            )
        if label is not None and label != int(mask.any()):
            raise ValueError(
                f"Mask {name!r} holds {int(mask.sum())} anomalous pixels but {self.image_label_key} is {label}: "
                "correct the label, or remove the mask if it is unknown."
            )


def _marked(volume: NiftiVolume) -> npt.NDArray[np.uint8]:
    return np.asarray(np.nan_to_num(volume.data) != 0, dtype=np.uint8)


def _check_place(name: str, mask: NiftiVolume, image: MetaTensor) -> None:
    if NO_FORM in mask.notes:
        return
    apart = distance_apart(mask.affine, np.asarray(image.affine, dtype=np.float64), mask.data.shape)
    if apart:
        raise ValueError(
            f"Mask {name!r} lies up to {apart:.3g} mm from its image, by their affines: resample it onto the image, or "
            "give it the image's affine if their voxels belong together."
        )


LoadMaskD = LoadMaskDict = LoadMaskd
