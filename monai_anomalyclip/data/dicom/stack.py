# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A stack of frames while a study is grouped, and the numbers and names that the stacks of a series get."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import text_of
from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, Instance, StackGeometry
from monai_anomalyclip.data.dicom.spacing import PixelSpacing
from monai_anomalyclip.data.dicom.traits import sort_key

__all__ = ["Stack", "instance_key", "number_and_name"]

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
        return f"{name} {value[0]:g} x {value[1]:g}"
    if value is None:
        return f"no {name}"
    if isinstance(value, int | float):
        return f"{name} {value:g}"
    return f"{name} {ranks[value] + 1}"
