# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A stack of frames while a study is grouped, and the numbers and names that the stacks of a series get."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import alike, text_of
from monai_anomalyclip.data.dicom.geometry import PixelSpacing
from monai_anomalyclip.data.dicom.series import (
    DicomSeries,
    FrameReference,
    Instance,
    StackGeometry,
    digest_of_instances,
)
from monai_anomalyclip.data.dicom.traits import MOMENTS, SPLITTING_TRAITS, Trait, sort_key

__all__ = ["Stack", "StackPart", "instance_key", "number_and_name", "split_until_unique"]

_Floats = npt.NDArray[np.float64]


@dataclass
class Stack:
    """Frames on their way to a series, and what tells them from the other stacks of the series, in order of rank."""

    frames: list[FrameReference]
    traits: dict[str, Hashable]
    spacing: PixelSpacing
    excluded: str | None
    notes: list[str] = field(default_factory=list)
    planes: list[tuple[_Floats, _Floats]] = field(default_factory=list)
    geometry: StackGeometry = field(default_factory=StackGeometry)


def instance_key(instance: Instance) -> tuple[str, str]:
    """What puts files in an order that does not depend on how they were given."""
    return text_of(instance.header, "SOPInstanceUID"), str(instance.path)


def number_and_name(stacks: Sequence[Stack]) -> list[DicomSeries]:
    """Number and name the stacks of one series."""
    names = list(dict.fromkeys(name for stack in stacks for name in stack.traits))
    ranks = {name: _ranks({stack.traits[name] for stack in stacks if name in stack.traits}) for name in names}
    telling = [name for name in names if len(ranks[name]) > 1]
    ranked = sorted(
        stacks,
        key=lambda stack: (
            [ranks[name][stack.traits[name]] if name in stack.traits else -1 for name in telling],
            instance_key(stack.frames[0].instance),
            stack.frames[0].index,
        ),
    )
    result = []
    source = digest_of_instances(
        text_of(frame.instance.header, "SOPInstanceUID") for stack in stacks for frame in stack.frames
    )
    for part, stack in enumerate(ranked):
        words = [_words(name, stack.traits[name], ranks[name]) for name in telling if name in stack.traits]
        positioned = stack.geometry.positions is not None
        result.append(
            DicomSeries(
                kind="volume" if positioned else "cine" if len(stack.frames) > 1 else "frame",
                frames=tuple(stack.frames),
                geometry=stack.geometry
                if positioned
                else StackGeometry(pixel_spacing=stack.spacing.spacing, spacing_source=stack.spacing.source),
                colour=bool(stack.traits["colour"]),
                part=part,
                split=", ".join(filter(None, words)) or "other frames" if len(ranked) > 1 else None,
                excluded=stack.excluded,
                notes=tuple(dict.fromkeys(stack.notes)),
                source_digest=source,
            )
        )
    return result


def _ranks(values: set[Hashable]) -> dict[Hashable, int]:
    return {value: rank for rank, value in enumerate(sorted(values, key=sort_key))}


def _words(name: str, value: Hashable, ranks: dict[Hashable, int]) -> str:
    """What a trait says in the name of a part; text of the files is replaced by its number."""
    if name == "exclusion":
        return str(value or "")
    if name == "colour":
        return "colour" if value else "gray"
    if name in ("size", "pixel spacing") and isinstance(value, tuple):
        return f"{name} {' x '.join(f'{side:.4g}' if isinstance(side, float) else str(side) for side in value)}"
    if value is None:
        return f"no {name}"
    if isinstance(value, int | float):
        return f"{name} {value:g}"
    return f"{name} {ranks[value] + 1}"


_IN_PLANE_MM = 1.0
_SLICES_OF_A_STATION = 4

_Ints = npt.NDArray[np.int64]


class StackPart(NamedTuple):
    """Indices of the frames of a part, and the value of each trait by which it was told apart."""

    indices: _Ints
    values: dict[str, Hashable]


def split_until_unique(
    frames: Sequence[FrameReference], places: _Ints, in_plane: npt.NDArray[np.float64]
) -> list[StackPart]:
    """Split frames of one orientation by their traits until no two frames of a part lie in one place.

    A trait is used if it differs between frames of one place, and has no more values than the fullest place has
    frames: so one that merely changes from slice to slice never tears a stack apart. Failing that, one that cuts the
    frames into parts of four or more on average is used (stations that overlap). Failing that, if all places hold
    equally many frames, these are numbered in time within their place (heart phases). Frames that all lie in one
    place are not split by traits of time: they are one sequence. Whatever is left lies in one place for no reason
    that the headers give.

    Args:
        frames: n frames.
        places: (n,) number of the place of each frame along the normal.
        in_plane: (n, 2) position of each frame within its plane, in mm.
    """
    traits = (*SPLITTING_TRAITS, Trait("position in the plane", lambda frame: None, noise_mm=_IN_PLANE_MM))
    codes: dict[str, _Ints] = {}
    values: dict[str, list[Hashable]] = {}

    def coded(trait: Trait) -> _Ints:
        if trait.name not in codes:
            if trait is traits[-1]:
                found: list[Hashable] = list(map(tuple, in_plane.tolist()))
            else:
                found = [trait.read(frame) for frame in frames]
            found = _without_noise(found, trait)
            values[trait.name] = sorted(set(found), key=sort_key)
            numbers = {value: number for number, value in enumerate(values[trait.name])}
            codes[trait.name] = np.array([numbers[value] for value in found], dtype=np.int64)
        return codes[trait.name]

    def split(indices: _Ints) -> list[StackPart]:
        here = places[indices]
        counts = np.unique(here, return_counts=True)[1]
        if counts.max() < 2:
            return [StackPart(indices, {})]
        for limit in (counts.max(), len(indices) // _SLICES_OF_A_STATION):
            for trait in traits:
                if len(counts) == 1 and trait.in_time:
                    continue
                mine = coded(trait)[indices]
                if 2 <= len(np.unique(mine)) <= limit and _differ_in_a_place(here, mine):
                    return [
                        StackPart(part.indices, {trait.name: values[trait.name][code], **part.values})
                        for code in np.unique(mine)
                        for part in split(indices[mine == code])
                    ]
        if len(counts) > 1 and (counts == counts[0]).all():
            for trait in MOMENTS:
                mine = coded(trait)[indices]
                order = np.lexsort((mine, here))
                table = mine[order].reshape(len(counts), counts[0])
                if (np.diff(table, axis=1) > 0).all() and None not in values[trait.name]:
                    columns = indices[order].reshape(table.shape).T
                    return [StackPart(column, {"phase": number}) for number, column in enumerate(columns, 1)]
        return [StackPart(indices, {})]

    return split(np.arange(len(frames)))


def _without_noise(values: Sequence[Hashable], trait: Trait) -> list[Hashable]:
    """Put the same number, or numbers, in place of those that are the same but for noise."""
    shapes: dict[int, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        parts = value if isinstance(value, tuple) else (value,)
        if parts and all(isinstance(part, float) for part in parts):
            shapes[len(parts)].append(index)
    result = list(values)
    for indices in shapes.values():
        numbers = np.array([values[index] for index in indices], dtype=np.float64)
        first: dict[int, Hashable] = {}
        for index, label in sorted(
            zip(indices, alike(numbers, trait.tolerance(numbers)).tolist(), strict=True),
            key=lambda pair: sort_key(values[pair[0]]),
        ):
            result[index] = first.setdefault(label, values[index])
    return result


def _differ_in_a_place(places: _Ints, codes: _Ints) -> bool:
    order = np.lexsort((codes, places))
    same_place = np.diff(places[order]) == 0
    return bool((same_place & (np.diff(codes[order]) != 0)).any())
