# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What must be the same in all files of a stack: what divides a stack where it is not, and what is only warned of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

from monai_anomalyclip.data.dicom.attributes import find_value, is_inverted, text_of, vector
from monai_anomalyclip.data.dicom.series import FrameReference, Instance, values_of
from monai_anomalyclip.data.dicom.stack import Stack

__all__ = ["divide", "pool_lonely_series"]

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
