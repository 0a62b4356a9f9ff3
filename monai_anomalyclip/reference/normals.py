# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Normal images out of files: every picture, and every slice of every volume, with whose they are."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_anomalyclip.data.dicom.attributes import patient_digest
from monai_anomalyclip.data.errors import failure_reason
from monai_anomalyclip.data.inputs import InputCatalogue, load_input
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import DicomSource, InputPart, Source

__all__ = ["NormalImage", "group_of", "normal_images", "slices_of"]

logger = logging.getLogger(__name__)

GROUPING = ("input", "folder")
"""What is left out together when an image is compared with the others: what one input shows, or one folder."""


@dataclass(frozen=True)
class NormalImage:
    """One picture or slice.

    Attributes:
        image: (1 or 3, H, W) in [0, 1]; a MetaTensor whose meta ``intensity`` says how it was scaled.
        group: whose it is, such as the patient; None when it stands alone.
        name: of the input, without text of its file unless names are kept.
        index: of the slice or frame, from 0.
    """

    image: Tensor
    group: str | None = None
    name: str = ""
    index: int = 0


def group_of(source: Source, grouping: str = "input") -> str | None:
    """Whose an input is: a DICOM series' patient where the header says, else its folder or the input itself.

    Args:
        source: the input.
        grouping: of :data:`GROUPING`.

    Returns:
        text that must not be shown; None for a picture that stands alone.
    """
    if isinstance(source, DicomSource) and (patient := patient_digest(source.series.frames[0])):
        return f"patient {patient}"
    if grouping == "folder":
        return f"folder {source.paths[0].parent}"
    return None if source.kind == "frame" else f"input {source.state()}"  # by content: names repeat


def slices_of(value: InputPart | str | Path, preset: str = "auto", slice_axis: int | str = "auto") -> list[Tensor]:
    """Read an input and cut it into the pictures that are compared: one of a frame, all slices of a volume or film.

    Args:
        value: an item of :class:`monai_anomalyclip.data.InputCatalogue`, or a path.
        preset: of a path's intensities; an item of a catalogue has that of the catalogue.
        slice_axis: as for :class:`monai_anomalyclip.inferers.AnomalySliceInferer`.

    Returns:
        MetaTensors (1 or 3, H, W) in [0, 1].

    Raises:
        UnreadableInputError: it cannot be read.
        ValueError: it has no finite value.
    """
    loaded = load_input(value, {"preset": preset})  # an item of a catalogue has its own
    meta = {name: loaded.meta.get(name) or "" for name in ("intensity", "modality", "notes")}
    if loaded.ndim == 3:
        return [MetaTensor(loaded.as_tensor(), meta=meta)]
    native = bool(torch.as_tensor(loaded.meta.get("native_slices", 0)).all())
    shape = tuple(loaded.shape[1:])
    view = SliceView.native(shape) if native else SliceView.from_affine(loaded.affine, shape, slice_axis)
    return [MetaTensor(one.contiguous(), meta=meta) for one in view.to_slices(loaded.as_tensor())]


def normal_images(
    catalogue: InputCatalogue,
    *,
    slice_axis: int | str = "auto",
    grouping: str = "input",
    failed: Callable[[str, str], None] | None = None,
) -> Iterator[NormalImage]:
    """Every picture and every slice of the inputs, one input in memory at a time; what readers note is logged.

    Args:
        catalogue: the inputs.
        slice_axis: as for :class:`monai_anomalyclip.inferers.AnomalySliceInferer`.
        grouping: "input", or "folder" where each patient has a folder.
        failed: told name and reason of an input that cannot be read; without it the error is raised.

    Raises:
        UnreadableInputError: an input cannot be read and nobody wants to be told.
        ValueError: an unknown grouping.
    """
    if grouping not in GROUPING:
        raise ValueError(f"grouping={grouping!r} is not one of {', '.join(GROUPING)}.")
    for item in catalogue.items():
        part, name = item["image"], item["name"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of single images; what matters is said of the whole reference
                pictures = slices_of(part, catalogue.options.preset, slice_axis)
        except (OSError, ValueError, RuntimeError) as error:
            if failed is None:
                raise
            failed(name, failure_reason(error, item))
            continue
        if notes := getattr(pictures[0], "meta", {}).get("notes"):
            logger.warning("%s: %s", name, notes)
        group = group_of(part.source, grouping)
        for index, picture in enumerate(pictures):
            yield NormalImage(picture, group, name, part.start + index)
