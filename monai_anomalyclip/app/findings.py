# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The regions of an input's mask, one by one, and what a reviewer decided about each.

Decisions are kept beside the results and bound to the mask that they were made on.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from scipy import ndimage

from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.writers.finished import InputState

__all__ = ["MOST_REGIONS", "Decision", "Region", "Regions", "Review", "StaleReviewError", "find_regions"]

MOST_REGIONS = 50
"""Regions of one input that are named one by one."""

Verdict = Literal["accepted", "rejected", "open"]


class Region(BaseModel):
    """A connected region of the mask, or (number 0) an input as a whole, where there is no mask to cut up.

    Attributes:
        number: from 1, by highest value of the map, then size.
        voxel: where the map is highest, in the axes of the map's file.
        slice: index of the slice or frame that this lies on.
        first: the first slice of the region.
        last: the last one.
        voxels: its size.
        volume_ml: its size in millilitres; None where spacings are unknown.
        map_max: highest value of the map in it.
    """

    number: int
    voxel: tuple[int, ...] = ()
    slice: int = 0
    first: int = 0
    last: int = 0
    voxels: int = 0
    volume_ml: float | None = None
    map_max: float | None = None


class Regions(NamedTuple):
    """The regions of an input.

    Args:
        regions: the most suspicious first, at most :data:`MOST_REGIONS`.
        others: number of further ones.
        labels: their numbers on the grid of the mask's file, 0 elsewhere; None where there is no mask.
        mask: the file that they were cut from.
    """

    regions: list[Region]
    others: int
    labels: npt.NDArray[np.int32] | None
    mask: Path | None


def find_regions(folder: Path, state: InputState) -> Regions:
    """Cut up the mask of an input.

    Args:
        folder: of the results.
        state: of the input, finished.
    """
    record = state.record
    assert record is not None
    written = {path.rpartition("_")[2]: folder / path for path in record.outputs}
    if "mask.nii.gz" in written and "map.nii.gz" in written:
        mask, heat = (np.asarray(nib.load(written[f"{kind}.nii.gz"]).dataobj) for kind in ("mask", "map"))
        source, axis = written["mask.nii.gz"], record.slice_axis if record.slice_axis is not None else 2
    elif "mask.png" in written and "heat.png" in written:
        mask = np.asarray(Image.open(written["mask.png"]))
        values = np.asarray(Image.open(written["heat.png"]))
        heat, source, axis = values / (255 if values.dtype == np.uint8 else 65535), written["mask.png"], None
    else:
        peak = record.most_suspicious[0].index if record.most_suspicious else 0
        whole = Region(number=0, slice=peak, first=0, last=record.frames - 1, map_max=record.map_max)
        return Regions([whole], 0, None, None)
    labels, count = ndimage.label(mask != 0, np.ones((3,) * mask.ndim))
    numbers = np.arange(1, count + 1)
    highest = ndimage.maximum(heat, labels, numbers)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = most_suspicious_first(highest.tolist(), sizes.tolist())[:MOST_REGIONS]
    renumbered = np.zeros(count + 1, np.int32)
    places = ndimage.maximum_position(heat, labels, numbers)
    boxes = ndimage.find_objects(labels)
    voxel_ml = _voxel_ml(state, int(np.count_nonzero(mask)))
    found = []
    for number, index in enumerate(order, start=1):
        renumbered[index + 1] = number
        box = boxes[index]
        found.append(
            Region(
                number=number,
                voxel=tuple(map(int, places[index] if mask.ndim == 3 else places[index][::-1])),
                slice=0 if axis is None else int(places[index][axis]),
                first=0 if axis is None else int(box[axis].start),
                last=0 if axis is None else int(box[axis].stop) - 1,
                voxels=int(sizes[index]),
                volume_ml=None if voxel_ml is None else round(float(sizes[index]) * voxel_ml, 4),
                map_max=round(float(highest[index]), 4),
            )
        )
    return Regions(found, count - len(found), renumbered[labels], source)


def _voxel_ml(state: InputState, marked: int) -> float | None:
    volume = state.record.anomalous_volume_ml if state.record else None
    return None if volume is None or not marked else volume / marked


class StaleReviewError(ValueError):
    """Another tab has decided something meanwhile."""


class Decision(BaseModel):
    """What was decided on one region."""

    verdict: Verdict = "open"
    note: Annotated[str, Field(max_length=2000)] = ""


class _Reviewed(BaseModel):
    content: str
    decisions: dict[int, Decision] = {}


class _File(BaseModel):
    revision: int = 0
    inputs: dict[str, _Reviewed] = {}


class Review:
    """The decisions on one study.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        try:
            self._file = _File.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self._file = _File()
        except ValidationError:
            path.replace(path.with_name("review_damaged.json"))
            self._file = _File()

    @property
    def revision(self) -> int:
        """Grows with each decision."""
        return self._file.revision

    def decisions(self, state: InputState) -> dict[int, Decision]:
        """By number of the region. What was decided on other results of this input does not count."""
        found = self._file.inputs.get(state.name)
        return dict(found.decisions) if found is not None and found.content == _content(state) else {}

    def decide(self, state: InputState, number: int, decision: Decision, revision: int) -> int:
        """Keep a decision.

        Args:
            state: of the input.
            number: of the region.
            decision: what was decided.
            revision: what the page that decides has seen.

        Returns:
            the new revision.

        Raises:
            StaleReviewError: somebody else has decided something on this region meanwhile.
        """
        with self.lock:
            before = self.decisions(state).get(number, Decision())
            if revision != self.revision and before not in (Decision(), decision):
                raise StaleReviewError("This was decided in another tab meanwhile: look at it again.")
            decisions = {**self.decisions(state), number: decision}
            reviewed = _Reviewed(content=_content(state), decisions=decisions)
            inputs = {**self._file.inputs, state.name: reviewed}
            self._file = _File(revision=self.revision + 1, inputs=inputs)
            write_atomically(self.path, self._file.model_dump_json(indent=2).encode())
            return self.revision


def _content(state: InputState) -> str:
    """Digests of the masks among the files of an input."""
    masks = [file.sha256 for file in state.files if file.path.endswith(("_mask.nii.gz", "_mask.png"))]
    return " ".join(masks or [file.sha256 for file in state.files])
