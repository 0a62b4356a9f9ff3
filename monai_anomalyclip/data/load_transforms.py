# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The readers as MONAI takes them: dictionary transforms, and a data set in which one bad input does not end the run.

They lie apart from the readers because MONAI takes seconds to import, and reading headers does not need it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.dataset import Dataset
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from torch import Tensor

from monai_anomalyclip.data.errors import failure_reason, may_pass
from monai_anomalyclip.data.input_files import is_nifti
from monai_anomalyclip.data.inputs import load_input
from monai_anomalyclip.data.sources import ReadOptions

if TYPE_CHECKING:
    from monai_anomalyclip.data.nifti import NiftiVolume

__all__ = [
    "FaultTolerantDataset",
    "LoadFrameD",
    "LoadFrameDict",
    "LoadFramed",
    "LoadInputD",
    "LoadInputDict",
    "LoadInputd",
    "LoadMaskD",
    "LoadMaskDict",
    "LoadMaskd",
]


class LoadFramed(MapTransform):
    """Replace the paths of pictures by what :func:`load_frame` reads.

    Args:
        keys: keys of the paths.
        allow_missing_keys: do not raise when a key is missing.

    Example::

        LoadFramed("image")({"image": "frame.png"})["image"].shape  # (3, H, W)
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with the pictures loaded.

        Raises:
            UnreadableInputError: as for :func:`read_frame`.
        """
        from monai_anomalyclip.data.frames import load_frame  # each reader is imported for what it reads

        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = load_frame(item[key], None)  # which of several pictures its mask and label belong to is unknown
        return item


class LoadInputd(MapTransform):
    """Replace inputs or paths by what :func:`load_input` reads.

    Args:
        keys: keys of the inputs.
        options: how paths are read.
        allow_missing_keys: do not raise when a key is missing.
        eight_bit: as for :func:`load_input`.

    Example::

        LoadInputd("image", {"preset": "ct-lung"})({"image": "study"})["image"].shape  # (1, X, Y, Z)
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        options: ReadOptions | Mapping[str, Any] | None = None,
        allow_missing_keys: bool = False,
        eight_bit: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.options = options
        self.eight_bit = eight_bit

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its inputs loaded.

        Raises:
            UnreadableInputError: a file cannot be read.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = load_input(item[key], self.options, self.eight_bit)
        return item


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

    Example::

        load = Compose([LoadFramed("image"), LoadMaskd("label")])
        load({"image": "frame.png", "label": "mask.png"})["image_label"]  # 0 or 1
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
            from monai_anomalyclip.data.masks import marked, read_mask
            from monai_anomalyclip.data.nifti import read_volume

            volume = read_volume(path) if is_nifti(path) else None
            mask = torch.from_numpy(read_mask(path) if volume is None else marked(volume))[None]
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


class FaultTolerantDataset(Dataset):
    """A data set that hands on what went wrong with an item instead of raising.

    An item whose transforms fail becomes ``{"name": name, "part": number, "error": reason, "may_pass": bool}``, where
    the last says whether it may do well another time; all others are what :class:`monai.data.Dataset` gives.

    Args:
        data: items with the keys ``image`` (a path or an :class:`InputPart`) and, optionally, ``name`` and ``part``.
        transform: transforms of an item.

    Example::

        dataset = FaultTolerantDataset(InputCatalogue("studies").items(), LoadInputd("image"))
    """

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:  # whatever it is, the other items go on
            item = self.data[index]
            name = item["name"] if "name" in item else Path(item["image"]).name
            reason, passing = failure_reason(error, item), may_pass(error)
            return {"name": name, "part": item.get("part", 0), "error": reason, "may_pass": passing}


def _check_place(name: str, mask: NiftiVolume, image: MetaTensor) -> None:
    from monai_anomalyclip.data.nifti_form import NO_FORM, distance_apart

    if NO_FORM in mask.notes:
        return
    apart = distance_apart(mask.affine, np.asarray(image.affine, dtype=np.float64), mask.data.shape)
    if apart:
        raise ValueError(
            f"Mask {name!r} lies up to {apart:.3g} mm from its image, by their affines: resample it onto the image, or "
            "give it the image's affine if their voxels belong together."
        )


LoadFrameD = LoadFrameDict = LoadFramed
LoadInputD = LoadInputDict = LoadInputd
LoadMaskD = LoadMaskDict = LoadMaskd
