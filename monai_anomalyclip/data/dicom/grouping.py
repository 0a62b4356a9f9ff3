# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Group images into the stacks that are scored together, by what the headers say and never by names or numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import alike, find_value, plane, text_of, time_order, vector
from monai_anomalyclip.data.dicom.exclusion import exclusion_reason
from monai_anomalyclip.data.dicom.geometry import distance_along, find_pixel_spacing, judge_geometry, locations
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, Instance, SkippedFile
from monai_anomalyclip.data.dicom.stack import (
    Stack,
    divide,
    instance_key,
    number_and_name,
    pool_lonely_series,
    split_until_unique,
)

__all__ = ["group_instances"]

_SAME_ORIENTATION = 1e-3
_SAME_SPACING = 1e-3  # as a fraction: half a pixel over 512
_Floats = npt.NDArray[np.float64]


def group_instances(
    instances: Iterable[Instance], skipped_before: Iterable[SkippedFile] = ()
) -> tuple[list[DicomSeries], list[SkippedFile]]:
    """Group images into stacks.

    By study and series UID, SOP class, the reason for exclusion, size, samples, pixel spacing (within 0.1 %), stack ID,
    and orientation (direction cosines within 0.001); by what cannot differ in a stack, such as the frame of reference
    (see :func:`~monai_anomalyclip.data.dicom.stack.divide`); then, where several frames lie in one place, by echo,
    b-value, image type, time and so on (see :func:`~monai_anomalyclip.data.dicom.stack.split_until_unique`). Frames of
    several files, single-frame or multi-frame, go into one stack.

    - Frames with a position and an orientation make a "volume", even a single one.
    - Other single-frame files are a "frame" each, other multi-frame files a "cine" each.

    Args:
        instances: in any order; the result does not depend on it.
        skipped_before: files that were skipped when they were scanned. A series that a damaged one belongs to, or may
            belong to, gets a note.

    Returns:
        The stacks, sorted by study, series and what tells them apart; and the files whose headers cannot be used
        ("damaged header").
    """
    by_series: dict[tuple[str, str], list[Instance]] = {}
    skipped: list[SkippedFile] = []
    stacks: dict[tuple[str, str], list[Stack]] = {}
    with quiet_pydicom():
        for instance in instances:
            header = instance.header
            key = text_of(header, "StudyInstanceUID"), text_of(header, "SeriesInstanceUID")
            by_series.setdefault(key, []).append(instance)
        by_series = pool_lonely_series(by_series)
        for key in sorted(by_series):
            stacks[key] = _stacks(sorted(by_series[key], key=instance_key), skipped)
        found = [series for key in stacks for series in number_and_name(stacks[key])]
        return _warned(found, [file for file in (*skipped_before, *skipped) if file.damaged]), skipped


def _warned(found: list[DicomSeries], damaged: Sequence[SkippedFile]) -> list[DicomSeries]:
    """Note which series lack a damaged file: by its series UID, where that cannot be read by the folder."""
    if not damaged:
        return found
    own = Counter(file.series_uid for file in damaged if file.series_uid)
    near = Counter(file.path.parent for file in damaged if not file.series_uid)
    result = []
    for series in found:
        folders = {instance.path.parent for instance in series.instances}
        notes = []
        if count := own[series.series_uid]:
            notes.append(f"Damaged files of this series are left out ({count}): slices are missing.")
        if count := sum(near[folder] for folder in folders):
            notes.append(f"Damaged files lie beside those of this series ({count}): slices may be missing.")
        result.append(replace(series, notes=(*series.notes, *notes)))
    return result


def _stacks(instances: Sequence[Instance], skipped: list[SkippedFile]) -> list[Stack]:
    """The stacks of one series."""
    placed: list[Stack] = []
    pictures: list[Stack] = []
    for instance in instances:
        try:
            found = _frames_of(instance)
        except Exception:  # whatever a malformed value makes pydicom raise
            uid = text_of(instance.header, "SeriesInstanceUID")
            detail = "A value of the header cannot be decoded."
            skipped.append(SkippedFile(instance.path, "damaged header", detail, uid))
            continue
        for stack in found:
            (placed if stack.planes else pictures).append(stack)
    pictures.sort(key=_picture_key)
    for number, stack in enumerate(pictures, 1):
        stack.traits["image"] = number
    joined = _joined(placed)
    whole = [part for stack in joined for part in divide(stack)]
    return pictures + [part for stack in whole for parallel in _parallel(stack) for part in _unique(parallel)]


def _joined(stacks: Sequence[Stack]) -> list[Stack]:
    """Join the frames of several files that have the same traits, pixel spacings being the same but for noise."""
    known = sorted({stack.spacing.spacing for stack in stacks if stack.spacing.spacing is not None})
    labels = alike(np.log(known), _SAME_SPACING).tolist() if known else []
    # Groups are numbered by their first members.
    names = {spacing: known[labels.index(label)] for spacing, label in zip(known, labels, strict=True)}
    joined: dict[Hashable, Stack] = {}
    for stack in stacks:
        spacing = stack.spacing.spacing
        stack.traits = {**stack.traits, "pixel spacing": None if spacing is None else names[spacing]}
        first = joined.setdefault(tuple(stack.traits.items()), stack)
        if first is not stack:
            first.frames += stack.frames
            first.planes += stack.planes
            first.notes += stack.notes
            if first.spacing.source != stack.spacing.source:
                first.notes.append(
                    "The pixel spacing of some slices comes from another attribute than that of the first."
                )
    return list(joined.values())


def _picture_key(stack: Stack) -> tuple[float, tuple[str, str]]:
    instance = stack.frames[0].instance
    try:
        number = float(instance.header.get("InstanceNumber"))
    except Exception:  # absent or malformed
        number = np.inf
    return number, instance_key(instance)


def _frames_of(instance: Instance) -> list[Stack]:
    """The frames of a file by all traits that can be told from a frame alone."""
    header = instance.header
    excluded = exclusion_reason(header)
    frames = [FrameReference(instance, index) for index in range(instance.n_frames)]
    notes = []
    planes: list[tuple[_Floats, _Floats]] = []
    if excluded != "mosaic":
        try:
            found = [plane(frame) for frame in frames]
            planes = [place for place in found if place is not None]
            if 0 < len(planes) < len(frames):
                notes.append("Some frames have no position, so none was used.")
        except ValueError:
            notes.append("Position or orientation is missing or malformed and not used.")
            planes = []
    if len(planes) < len(frames):
        planes = []
    traits: dict[str, Hashable] = {
        "object": text_of(header, "SOPClassUID"),
        "exclusion": excluded,
        "size": (int(header.Rows), int(header.Columns)),
        "samples": int(header.get("SamplesPerPixel") or 1),
        "colour": _is_colour(instance),
    }
    if not planes:
        spacing = find_pixel_spacing(frames[0])
        notes += [spacing.note] if spacing.note else []
        return [Stack(frames, traits, spacing, excluded, notes)]
    stacks: dict[Hashable, Stack] = {}
    for frame, place in zip(frames, planes, strict=True):
        spacing = find_pixel_spacing(frame)
        own = {**traits, "pixel spacing": spacing.spacing, "stack": _stack_id(frame)}
        stack = stacks.setdefault(tuple(own.items()), Stack([], own, spacing, excluded, list(notes)))
        stack.frames.append(frame)
        stack.planes.append(place)
        stack.notes += [spacing.note] if spacing.note else []
    return list(stacks.values())


def _is_colour(instance: Instance) -> bool:
    photometric = text_of(instance.header, "PhotometricInterpretation").upper()
    return bool(photometric) and not photometric.startswith("MONOCHROME")


def _stack_id(frame: FrameReference) -> str:
    try:
        return str(find_value(frame, "FrameContentSequence", "StackID") or "")
    except ValueError:
        return ""


def _parallel(stack: Stack) -> list[Stack]:
    """Cut a stack by orientation."""
    orientations = np.array([orientation for orientation, _ in stack.planes])
    members: dict[int, list[int]] = defaultdict(list)
    for frame, label in enumerate(alike(orientations, _SAME_ORIENTATION).tolist()):
        members[label].append(frame)
    return [
        replace(
            stack,
            frames=[stack.frames[index] for index in indices],
            planes=[stack.planes[index] for index in indices],
            traits={**stack.traits, "orientation": min(map(tuple, orientations[indices].tolist()))},
            notes=list(stack.notes),
        )
        for indices in members.values()
    ]


def _unique(stack: Stack) -> list[Stack]:
    """Cut a stack of parallel frames until its places are unique, put the frames in order and judge the geometry."""
    orientation = min(stack.planes, key=lambda place: tuple(place[0]))[0]
    positions = np.array([position for _, position in stack.planes])
    places = locations(distance_along(orientation, positions))
    in_plane = positions @ orientation.reshape(2, 3).T
    result = []
    for indices, values in split_until_unique(stack.frames, places, in_plane):
        frames = [stack.frames[index] for index in indices]
        notes = list(stack.notes)
        if len(set(places[indices])) < len(frames):
            in_time = time_order(frames)
            indices, frames = indices[in_time], [frames[index] for index in in_time]
            if len(set(places[indices])) == 1:
                notes.append("All frames lie in one place; they are in the order of time.")
        order, geometry = judge_geometry(
            orientation,
            positions[indices],
            stack.spacing.spacing,
            spacing_source=stack.spacing.source,
            slice_thickness=_thickness(frames),
        )
        traits = {**stack.traits, **values}
        frames = [frames[index] for index in order]
        result.append(replace(stack, frames=frames, traits=traits, notes=notes, geometry=geometry))
    return result


def _thickness(frames: Sequence[FrameReference]) -> float | None:
    """Of all frames; None where they differ."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        found = [abs(value) for frame in frames if (value := _number(frame, keyword))]
        if found:
            return found[0] if np.allclose(found, found[0], rtol=_SAME_SPACING) else None
    return None


def _number(frame: FrameReference, keyword: str) -> float | None:
    try:
        value = vector(find_value(frame, "PixelMeasuresSequence", keyword), 1)
    except ValueError:
        return None
    return None if value is None else float(value[0])
