# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A stack of frames while a study is grouped: what must be the same in all its files, and its number and name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import (
    MOMENTS,
    SPLITTING_TRAITS,
    Trait,
    alike,
    find_value,
    is_inverted,
    sort_key,
    text_of,
    vector,
)
from monai_anomalyclip.data.dicom.geometry import PixelSpacing
from monai_anomalyclip.data.dicom.series import (
    DicomSeries,
    FrameReference,
    Instance,
    StackGeometry,
    digest_of_instances,
    values_of,
)

__all__ = [
    "Stack",
    "StackPart",
    "divide",
    "instance_key",
    "number_and_name",
    "pool_lonely_series",
    "split_until_unique",
]

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


# The functional group that may hold an attribute, its keyword, and what it is called. Positions, values and sides of
# different ones do not belong together.
_DIVIDING = (
    (None, "Modality", "modality"),
    (None, "PatientPosition", "patient position"),
    (None, "Units", "unit"),
    (None, "SUVType", "kind of uptake value"),
    (None, "DecayCorrection", "decay correction"),
    ("PixelValueTransformationSequence", "RescaleType", "unit of the rescaled values"),
    ("FrameAnatomySequence", "FrameLaterality", "laterality"),
    (None, "ImageLaterality", "image laterality"),
    (None, "Laterality", "laterality of the series"),
)
# Likewise, unless each file has one of its own: that is what some anonymisers write.
_IDENTIFIERS = (("PatientID", "patient ID"), ("FrameOfReferenceUID", "frame of reference"))

# Results have room for one value of these.
_TOLD_ONCE = {
    "PatientName": "patient name",
    "PatientID": "patient ID",
    "PatientBirthDate": "birth date",
    "PatientSex": "sex",
    "StudyInstanceUID": "study",
    "StudyID": "study ID",
    "StudyDate": "study date",
    "StudyTime": "study time",
    "AccessionNumber": "accession number",
    "SeriesInstanceUID": "series",
    "SeriesNumber": "series number",
    "FrameOfReferenceUID": "frame of reference",
    "PositionReferenceIndicator": "position reference",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "device",
    "BodyPartExamined": "body part",
    "LossyImageCompression": "lossy compression",
    "SpecificCharacterSet": "character set",
}
_FEWEST = 3
"""Of so many files, each may have an identifier of its own without being something else."""


def divide(stack: Stack) -> list[Stack]:
    """Divide a stack by what its frames cannot differ in and still belong together; warn of what else differs.

    Modality, patient position, unit, kind of uptake value, decay correction, unit of the rescaled values, laterality,
    and whether small values are bright divide it; so do patient ID and frame of reference, unless each of at least
    three files has one of its own. An attribute that some files lack divides only if it has several values. Of the
    other attributes that results tell once, such as the study date, a note of the stack says that they differ.

    Args:
        stack: frames with positions, of one series.

    Returns:
        The parts in no particular order; what divides them is added to their traits.
    """
    readers: list[tuple[str, Callable[[FrameReference], str]]] = [
        (name, _reader(sequence, keyword)) for sequence, keyword, name in _DIVIDING
    ]
    files = list({id(frame.instance): frame.instance for frame in stack.frames}.values())
    for keyword, name in _IDENTIFIERS:
        if not _each_its_own(files, keyword):
            readers.append((name, _reader(None, keyword)))
    readers.append(("brightness of small values", lambda frame: str(is_inverted(frame.instance.header))))
    values = {name: [read(frame) for frame in stack.frames] for name, read in readers}
    dividing = [name for name, found in values.items() if len({value for value in found if value}) > 1]
    members: dict[tuple[str, ...], list[int]] = {}
    for index in range(len(stack.frames)):
        members.setdefault(tuple(values[name][index] for name in dividing), []).append(index)
    return [_part(stack, indices, dict(zip(dividing, key, strict=True))) for key, indices in members.items()]


def _reader(sequence: str | None, keyword: str) -> Callable[[FrameReference], str]:
    def read(frame: FrameReference) -> str:
        try:
            value = find_value(frame, sequence, keyword)
        except ValueError:
            return ""
        return "" if value is None else str(value).strip().upper()

    return read


def _each_its_own(files: Sequence[Instance], keyword: str) -> bool:
    return len(files) >= _FEWEST and len(values_of(files, keyword)) == len(files)


def _part(stack: Stack, indices: Sequence[int], traits: dict[str, str]) -> Stack:
    frames = [stack.frames[index] for index in indices]
    files = list({id(frame.instance): frame.instance for frame in frames}.values())
    notes = list(stack.notes)
    if traits:
        notes.append(f"The files of this series differ in {_listed(traits)}: each kind is a stack of its own.")
    differing = {keyword: name for keyword, name in _TOLD_ONCE.items() if len(values_of(files, keyword)) > 1}
    own = [name for keyword, name in differing.items() if _each_its_own(files, keyword) and _is_identifier(keyword)]
    if own:
        notes.append(
            f"Each file has its own {_listed(own)}, as some anonymisers write: the files were taken for one stack."
        )
    if others := [name for name in differing.values() if name not in own]:
        notes.append(f"The files of this stack differ in {_listed(others)}: results leave out what they differ in.")
    return replace(
        stack,
        frames=frames,
        planes=[stack.planes[index] for index in indices],
        traits={**stack.traits, **traits},
        notes=notes,
    )


def _is_identifier(keyword: str) -> bool:
    return keyword.endswith(("UID", "ID")) or keyword == "AccessionNumber"


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def pool_lonely_series(groups: dict[tuple[str, str], list[Instance]]) -> dict[tuple[str, str], list[Instance]]:
    """Join series of one file each that are slices of one: some anonymisers give each file study and series UIDs.

    That is taken for granted only of at least three files with positions that agree in patient, study date, modality,
    SOP class, series number and description, and size, while instance numbers and positions all differ.

    Args:
        groups: the files by study and series UID.

    Returns:
        The same, with joined files under the key of the first.
    """
    alike: dict[Hashable, list[tuple[str, str]]] = {}
    for key in sorted(groups):
        if len(groups[key]) == 1 and (identity := _identity(groups[key][0])) is not None:
            alike.setdefault(identity, []).append(key)
    result = dict(groups)
    for keys in alike.values():
        files = [groups[key][0] for key in keys]
        distinct = all(len(values_of(files, one)) == len(files) for one in ("InstanceNumber", "ImagePositionPatient"))
        if len(keys) >= _FEWEST and distinct:
            for key in keys:
                del result[key]
            result[keys[0]] = files
    return result


def _identity(instance: Instance) -> Hashable:
    """What files of one series have in common, or None if this one can have been no slice of a series."""
    header = instance.header
    try:
        position, orientation = (
            vector(header.get(keyword), length)
            for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
        )
    except Exception:  # whatever a malformed value makes pydicom raise
        return None
    number = text_of(header, "SeriesNumber")
    if position is None or orientation is None or not number or instance.n_frames > 1:
        return None
    keywords = ("PatientName", "StudyDate", "Modality", "SOPClassUID", "SeriesDescription", "Rows", "Columns")
    return number, *(text_of(header, keyword) for keyword in keywords)
