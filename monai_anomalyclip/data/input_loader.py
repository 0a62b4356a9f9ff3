# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of a run on their way to the network: transforms that load them, a data set, a loader that reads ahead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.dataloader import DataLoader
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
    "InputLoader",
    "LoadFrameD",
    "LoadFrameDict",
    "LoadFramed",
    "LoadInputD",
    "LoadInputDict",
    "LoadInputd",
    "LoadMaskD",
    "LoadMaskDict",
    "LoadMaskd",
    "picture_batches",
    "resolve_workers",
]

_MANY_CORES = 4
_MOST_WORKERS = 8  # two processes each, one that reads and one that writes
_SHARED = Path("/dev/shm")
_SHARED_BYTES = 2**30  # that processes need for handing volumes over
_FILE_BYTES = 2**25  # of the pictures of one batch, as they are stored


def resolve_workers(workers: int | str) -> int:
    """How many processes read ahead, and as many write.

    Args:
        workers: a number, or "auto": half of the cores, at most 8, where there are 4 or more and 1 GiB of shared
            memory, else none.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0:
        return workers
    if workers != "auto":
        raise ValueError(f"workers must be a whole number of processes, or 'auto', got {workers!r}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    if cores < _MANY_CORES or not _SHARED.is_dir() or shutil.disk_usage(_SHARED).free < _SHARED_BYTES:
        return 0
    return min(cores // 2, _MOST_WORKERS)


def picture_batches(items: Sequence[Mapping[str, Any]], batch_size: int) -> list[list[int]]:
    """Indices of the items, in their order, up to `batch_size` neighbouring pictures together and all else alone.

    Args:
        items: of a catalogue, with an ``image`` (:class:`~monai_anomalyclip.data.sources.InputPart`).
        batch_size: pictures of one batch; fewer where their files are large.
    """
    batches: list[list[int]] = []
    room = 0
    for index, item in enumerate(items):
        source = getattr(item["image"], "source", None)
        size = _size(source.paths[0]) if source is not None and source.kind == "frame" else None
        if size is not None and batches and size <= room and len(batches[-1]) < batch_size:
            batches[-1].append(index)
            room -= size
        else:
            batches.append([index])
            room = 0 if size is None else _FILE_BYTES - size
    return batches


class InputLoader(DataLoader):
    """Hands a data set on in lists of items (see :func:`picture_batches`), uncollated: pictures differ in size.

    Args:
        dataset: with an attribute ``data``, the items.
        batch_size: pictures of one list.
        workers: processes that read ahead (see :func:`resolve_workers`), each one list while another waits.

    Example:
        >>> [[item["name"] for item in items] for items in InputLoader(dataset, batch_size=8)]
    """

    def __init__(self, dataset: Dataset, batch_size: int = 8, workers: int | str = 0) -> None:
        batches = picture_batches(dataset.data, batch_size)
        count = min(resolve_workers(workers), len(batches))
        super().__init__(
            dataset,
            num_workers=count,
            batch_sampler=batches,
            collate_fn=list,
            prefetch_factor=1 if count else None,
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will say why
        return 0


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
        served_by: full name of the function of path and preset that reads in its place what MONAI Label asks for, with
            its knowledge of that server; what it asks for has the key ``image_path``, and nobody else's items do.

    Example::

        LoadInputd("image", {"preset": "ct-lung"})({"image": "study"})["image"].shape  # (1, X, Y, Z)
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        options: ReadOptions | Mapping[str, Any] | None = None,
        allow_missing_keys: bool = False,
        eight_bit: bool = False,
        served_by: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.options = options if isinstance(options, ReadOptions) else ReadOptions(**(options or {}))
        self.eight_bit = eight_bit
        self.served_by = served_by

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its inputs loaded.

        Raises:
            UnreadableInputError: a file cannot be read.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            if self.served_by is not None and "image_path" in data:
                module, _, name = self.served_by.rpartition(".")  # by name: a guest, which other items need not have
                item[key] = getattr(import_module(module), name)(item[key], self.options.preset)
            else:
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
