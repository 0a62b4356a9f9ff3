# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read what an annotation server hands over to tune on: images with labels, without a datalist.

MONAI Label puts a list of ``{"image": path, "label": path}`` in the place of a bundle's ``train#dataset#data``. Volumes
among them are cut into slices here.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import Dataset
from monai.transforms.transform import MapTransform
from torch import Tensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.input_files import is_nifti, is_picture
from monai_anomalyclip.data.input_loader import LoadFramed, LoadMaskd
from monai_anomalyclip.networks import FrozenCLIPNetwork
from monai_anomalyclip.transforms.clip_preprocess import CLIPMaskPreprocess

__all__ = [
    "LabelledParts",
    "LabelledSlice",
    "LoadLabelledD",
    "LoadLabelledDict",
    "LoadLabelledd",
    "is_handed_over",
    "labelled_parts",
    "tuning_dataset",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledSlice(os.PathLike[str]):
    """One slice of a file or of the folder of a DICOM series; a picture is its only slice.

    Args:
        path: of the image, or of its label.
        index: number of the slice, from 0; of a picture 0.
        preset: intensity preset that the image is read with.
        slice_axis: see :meth:`~monai_anomalyclip.data.slicing.SliceView.from_affine`.
    """

    path: str
    index: int
    preset: str = "auto"
    slice_axis: int | str = "auto"

    def __fspath__(self) -> str:
        """The path of the image."""
        return self.path


def is_handed_over(data: Sequence[Mapping[str, Any]]) -> bool:
    """Whether entries come from an annotation server: they are not numbered, as those read from a datalist are."""
    return not all("index" in entry for entry in data)


def tuning_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Sequence[Callable[..., Any]] | Callable[..., Any],
    network: FrozenCLIPNetwork,
    *,
    required: bool = False,
    preset: str = "auto",
    slice_axis: int | str = "auto",
    **options: Any,
) -> Dataset:
    """:func:`~monai_anomalyclip.data.feature_dataset` of entries from a datalist or from an annotation server.

    The latter are cut by :func:`labelled_parts` and given their ``index`` and ``class``.

    Args:
        data: entries with ``image``, and ``label`` or ``image_label``.
        transform: begins with :class:`LoadLabelledd`.
        network: whose encoder makes the features.
        required: whether an empty list is an error.
        preset: intensity preset of images from an annotation server.
        slice_axis: along which their volumes are cut, as for inference.
        options: as for :func:`~monai_anomalyclip.data.feature_dataset`.

    Raises:
        ValueError: there is no entry that can be read though there must be, or a volume has no label.
    """
    from monai_anomalyclip.data.feature_cache import feature_dataset

    unreadable = 0
    if is_handed_over(data):
        parts = labelled_parts(data, preset, slice_axis)
        unreadable = parts.unreadable
        data = [{**part, "index": index, "class": "all"} for index, part in enumerate(parts.entries)]
    if required and not data:
        raise ValueError(
            f"There is no final label to tune the prompts on ({unreadable} cannot be read): save some labels first, of "
            "images with an anomaly and of normal ones (empty labels)."
        )
    return feature_dataset(data, transform, network, **options)


class LabelledParts(NamedTuple):
    """Labelled images as entries of a data set.

    Attributes:
        entries: one for each slice that is used.
        anomalous: how many of these show an anomaly.
        images: how many images they are of.
        normal_images: how many of these have an empty label.
        unreadable: how many images were left out because image or label cannot be read.
    """

    entries: list[dict[str, Any]]
    anomalous: int
    images: int
    normal_images: int
    unreadable: int


def labelled_parts(
    data: Iterable[Mapping[str, Any]], preset: str = "auto", slice_axis: int | str = "auto"
) -> LabelledParts:
    """Make one entry of each of the :func:`~monai_anomalyclip.label.label_files.representative_slices` of images.

    Images that cannot be read are left out, with a line in the log.

    Args:
        data: ``{"image": path, "label": path}``, as a MONAI Label datastore lists them. Entries that are slices
            already, and pictures without a label but with ``image_label``, stay as they are.
        preset: intensity preset; that of inference.
        slice_axis: along which volumes are cut; that of inference.

    Raises:
        ValueError: a volume has no label.
    """
    from monai_anomalyclip.label.label_files import representative_slices

    entries: list[dict[str, Any]] = []
    anomalous = images = normal = unreadable = 0
    for entry in data:
        image, label = entry["image"], entry.get("label")
        if isinstance(image, LabelledSlice) or (not label and is_picture(image)):
            entries.append(dict(entry))
            continue
        if not label:
            raise ValueError(
                f"{Path(image).name!r} has no label: a volume is tuned on slice by slice, which needs one."
            )
        places = [LabelledSlice(str(path), 0, preset, slice_axis) for path in (image, label)]
        try:
            _, masks = _slices(*places, *map(_state, places))
        except UnreadableInputError as error:
            logger.warning(f"A labelled image is left out: {error}")
            unreadable += 1
            continue
        images += 1
        normal += not masks.any()
        chosen = representative_slices(masks).tolist()
        anomalous += sum(bool(masks[index].any()) for index in chosen)
        entries += [
            {**entry, "image": replace(places[0], index=index), "label": replace(places[1], index=index)}
            for index in chosen
        ]
    return LabelledParts(entries, anomalous, images, normal, unreadable)


class LoadLabelledd(MapTransform):
    """Load the image and the mask of an entry of :func:`tuning_dataset`.

    Pictures of a datalist and their masks are read by :class:`~monai_anomalyclip.data.LoadFramed` and
    :class:`~monai_anomalyclip.data.LoadMaskd`. Slices come out as (3, H, W) or (1, H, W) in [0, 1], as inference shows
    them to the network, with a mask (1, H, W), ``image_label`` and ``has_label``, which is 0 where an anomaly is so
    small that nothing of it is left at the network's size: what is known then is the image's label only.

    Args:
        keys: key of the image.
        label_key: key of the mask.
        image_size: of the network; None takes every mask for known.
    """

    def __init__(
        self, keys: str = "image", label_key: str = "label", image_size: int | Sequence[int] | None = None
    ) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self._resize = None if image_size is None else CLIPMaskPreprocess(image_size)
        self._frame = LoadFramed(keys)
        self._mask = LoadMaskd(label_key, image_key=self.keys[0])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the entry with its image and mask loaded.

        Raises:
            UnreadableInputError: one of them cannot be read.
            ValueError: see :class:`~monai_anomalyclip.data.LoadMaskd`.
        """
        place, label = data[self.keys[0]], data.get(self.label_key)
        if not isinstance(place, LabelledSlice):
            if is_nifti(place):  # of a datalist written by hand: annotation servers' volumes have been cut
                raise UnreadableInputError(
                    f"{Path(place).name!r} is a volume, but a datalist is of pictures: save its slices as pictures, or "
                    "tune on volumes with MONAI Label."
                )
            return self._mask(self._frame(data))
        assert isinstance(label, LabelledSlice)  # see labelled_parts
        images, masks = _slices(replace(place, index=0), replace(label, index=0), _state(place), _state(label))
        mask = masks[place.index]
        loaded = {self.keys[0]: images[place.index], self.label_key: mask}
        anomalous = bool(mask.any())
        lost = anomalous and self._resize is not None and not torch.as_tensor(self._resize(mask)).any()
        return {**data, **loaded, "image_label": int(anomalous), "has_label": int(not lost)}


def _state(path: str | os.PathLike[str]) -> int:
    return Path(path).stat().st_mtime_ns


@functools.lru_cache(maxsize=1)  # the slices of a volume follow each other
def _slices(image: LabelledSlice, label: LabelledSlice, *_states: int) -> tuple[Tensor, Tensor]:
    """All slices (D, 1 or 3, H, W) of an image in [0, 1], as inference shows them, and their masks (D, 1, H, W)."""
    from monai_anomalyclip.label.label_files import labelled_slices, read_label
    from monai_anomalyclip.label.reading import read_image

    shown = read_image(image.path, image.preset)
    marked = read_label(label.path, shown).to(torch.uint8)
    return labelled_slices(shown, marked, image.slice_axis)


LoadLabelledD = LoadLabelledDict = LoadLabelledd
