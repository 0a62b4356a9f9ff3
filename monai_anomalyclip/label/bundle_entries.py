# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read what an annotation server hands over: images to score, and images with labels to tune on, without a datalist.

MONAI Label puts a list of ``{"image": path, "label": path}`` in the place of a bundle's ``train#dataset#data``. Volumes
among them are cut into slices here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.data import Dataset
from monai.transforms.transform import MapTransform
from torch import Tensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.feature_cache import feature_dataset
from monai_anomalyclip.data.frames import FRAME_SUFFIXES
from monai_anomalyclip.data.load_transforms import LoadFramed, LoadInputd, LoadMaskd
from monai_anomalyclip.data.nifti import is_nifti
from monai_anomalyclip.data.sources import ReadOptions
from monai_anomalyclip.label.label_files import labelled_slices, read_label, representative_slices
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.networks import FrozenCLIPNetwork

__all__ = [
    "LoadInputOrServedD",
    "LoadInputOrServedDict",
    "LoadInputOrServedd",
    "LoadLabelledD",
    "LoadLabelledDict",
    "LoadLabelledd",
    "VolumeSlice",
    "is_handed_over",
    "tuning_dataset",
]


@dataclass(frozen=True)
class VolumeSlice(os.PathLike[str]):
    """One slice of a file or of the folder of a DICOM series.

    Args:
        path: of the volume, or of its label.
        index: number of the slice, from 0.
    """

    path: str
    index: int

    def __fspath__(self) -> str:
        """The path of the volume."""
        return self.path


class LoadInputOrServedd(LoadInputd):
    """:class:`~monai_anomalyclip.data.LoadInputd`, and for items that MONAI Label asks for
    :func:`~monai_anomalyclip.label.reading.read_image`, which knows what that server makes of DICOM series.

    Args:
        keys: keys of the inputs.
        options: how paths are read; of what MONAI Label asks for only the preset counts.
        allow_missing_keys: do not raise when a key is missing.
        request_key: what MONAI Label puts into its items, and nobody else.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        options: ReadOptions | Mapping[str, Any] | None = None,
        allow_missing_keys: bool = False,
        request_key: str = "image_path",
    ) -> None:
        super().__init__(keys, options, allow_missing_keys)
        self.request_key = request_key
        self._preset = (options if isinstance(options, ReadOptions) else ReadOptions(**(options or {}))).preset

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its inputs loaded; those of MONAI Label are scaled to [0, 1] already.

        Raises:
            UnreadableInputError: a file cannot be read.
        """
        if self.request_key not in data:
            return super().__call__(data)
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = read_image(item[key], self._preset)
        return item


def is_handed_over(data: Sequence[Mapping[str, Any]]) -> bool:
    """Whether entries come from an annotation server: they are not numbered, as those read from a datalist are."""
    return not all("index" in entry for entry in data)


def tuning_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Sequence[Callable[..., Any]] | Callable[..., Any],
    network: FrozenCLIPNetwork,
    *,
    required: bool = False,
    **options: Any,
) -> Dataset:
    """:func:`~monai_anomalyclip.data.feature_dataset` of entries from a datalist or from an annotation server.

    The latter are given their ``index`` and ``class``, and one that is no picture becomes one entry for each of its
    :func:`~monai_anomalyclip.label.label_files.representative_slices`.

    Args:
        data: entries with ``image``, and ``label`` or ``image_label``.
        transform: begins with :class:`LoadLabelledd`.
        network: whose encoder makes the features.
        required: whether an empty list is an error.
        options: as for :func:`~monai_anomalyclip.data.feature_dataset`.

    Raises:
        ValueError: there is no entry though there must be.
        UnreadableInputError: a volume or its label cannot be read.
    """
    if required and not data:
        raise ValueError(
            "There is nothing to tune the prompts on: save final labels first, of images with an anomaly and of normal "
            "ones (empty labels)."
        )
    if is_handed_over(data):
        slices = [part for entry in data for part in _parts(entry)]
        data = [{**part, "index": index, "class": "all"} for index, part in enumerate(slices)]
    return feature_dataset(data, transform, network, **options)


class LoadLabelledd(MapTransform):
    """Load the image and the mask of an entry of :func:`tuning_dataset`.

    Pictures and their masks are read by :class:`~monai_anomalyclip.data.LoadFramed` and
    :class:`~monai_anomalyclip.data.LoadMaskd`. Slices come out as (3, H, W) or (1, H, W) in [0, 1], as inference shows
    them to the network, with a mask (1, H, W), ``image_label`` and ``has_label``.

    Args:
        keys: key of the image.
        label_key: key of the mask.
    """

    def __init__(self, keys: str = "image", label_key: str = "label") -> None:
        super().__init__(keys)
        self.label_key = label_key
        self._frame = LoadFramed(keys)
        self._mask = LoadMaskd(label_key, image_key=self.keys[0])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the entry with its image and mask loaded.

        Raises:
            UnreadableInputError: one of them cannot be read.
            ValueError: see :class:`~monai_anomalyclip.data.LoadMaskd`.
        """
        place, label = data[self.keys[0]], data.get(self.label_key)
        if not isinstance(place, VolumeSlice):
            if is_nifti(place):  # of a datalist written by hand: annotation servers' volumes have been cut
                raise UnreadableInputError(
                    f"{Path(place).name!r} is a volume, but a datalist is of pictures: save its slices as pictures, or "
                    "tune on volumes with MONAI Label."
                )
            return self._mask(self._frame(data))
        assert isinstance(label, VolumeSlice)  # see _parts
        images, masks = _slices(place.path, label.path, _state(place), _state(label))
        mask = masks[place.index]
        loaded = {self.keys[0]: images[place.index], self.label_key: mask}
        return {**data, **loaded, "image_label": int(mask.any()), "has_label": 1}


def _parts(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entry itself if it is a picture, else an entry for each slice that is used."""
    image, label = str(entry["image"]), entry.get("label")
    if image.lower().endswith(FRAME_SUFFIXES):
        return [dict(entry)]
    if not label:
        raise ValueError(f"{Path(image).name!r} has no label: a volume is tuned on slice by slice, which needs one.")
    _, masks = _slices(image, str(label), _state(image), _state(label))
    return [
        {**entry, "image": VolumeSlice(image, index), "label": VolumeSlice(str(label), index)}
        for index in representative_slices(masks).tolist()
    ]


def _state(path: str | os.PathLike[str]) -> int:
    return Path(path).stat().st_mtime_ns


@functools.lru_cache(maxsize=1)  # the slices of a volume follow each other
def _slices(image_path: str, label_path: str, *_states: int) -> tuple[Tensor, Tensor]:
    """All slices (D, 1 or 3, H, W) of an image in [0, 1], as inference shows them, and their masks (D, 1, H, W)."""
    image = read_image(image_path)
    label = read_label(label_path, image).to(torch.uint8)
    return labelled_slices(image, label)


LoadInputOrServedD = LoadInputOrServedDict = LoadInputOrServedd
LoadLabelledD = LoadLabelledDict = LoadLabelledd
