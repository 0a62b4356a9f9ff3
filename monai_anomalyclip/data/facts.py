# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the header of an input tells, for a list that people read before they start a run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_anomalyclip.data.dicom.gray import choose_for_series
from monai_anomalyclip.data.dicom.pixel_stream import readable
from monai_anomalyclip.data.dicom.series import DicomSeries, text_of
from monai_anomalyclip.data.errors import UnreadableInputError, failure_reason
from monai_anomalyclip.data.frames import stored_size
from monai_anomalyclip.data.nifti import describe_volume
from monai_anomalyclip.data.sources import DicomSource, FrameSource, InputPart, NiftiSource, Source, VideoSource

__all__ = ["InputFacts", "excluded_facts", "facts_of"]


@dataclass(frozen=True)
class InputFacts:
    """One line of the list.

    Args:
        name: of the results; "-" for a series that is left out.
        kind: modality and kind, such as "CT volume".
        frames: number of slices or frames.
        size: "rows x columns" of one.
        geometry: verdict on the geometry, or why the series is left out.
        preset: intensity preset that would be used.
        notes: sentences worth knowing.
        problem: why the input cannot be read, or "".
        series: Series Instance UID, or None.
        path: of the first file.
        description: Series Description, or None.
    """

    name: str
    kind: str
    frames: int | None = None
    size: str | None = None
    geometry: str | None = None
    preset: str | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    series: str | None = None
    path: str | None = None
    description: str | None = None

    def as_dict(self, uids: bool, paths: bool) -> dict[str, Any]:
        """The facts by name; UID only when asked for, as are path and description, which may name a patient."""
        hidden = {*(() if uids else ("series",)), *(() if paths else ("path", "description"))}
        return {key: value for key, value in vars(self).items() if key not in hidden}


def facts_of(name: str, source: Source) -> InputFacts:
    """Read the header of an input; one that cannot be read gets a `problem`."""
    facts: dict[str, Any] = {"name": name, "kind": source.kind, "path": str(source.paths[0])}
    try:
        if isinstance(source, DicomSource):
            return _series_facts(name, source.series, source.options.preset)
        if isinstance(source, NiftiSource):
            shape, affine, notes = describe_volume(source.paths[0], **source.reading())
            spacing = " x ".join(f"{length:.3g}" for length in np.linalg.norm(affine[:3, :3], axis=0))
            size = " x ".join(map(str, shape))
            facts |= {"size": size, "geometry": f"{spacing} mm", "preset": source.options.preset, "notes": notes}
        elif isinstance(source, VideoSource):
            index = source.reader.index
            facts |= {"frames": source.reader.n_frames, "size": f"{index.height} x {index.width}", "kind": "video"}
            facts["notes"] = (index.note,) if index.note else ()
        elif isinstance(source, FrameSource):
            facts |= {"frames": 1, "size": " x ".join(map(str, stored_size(source.paths[0], source.page)))}
    except Exception as error:  # a damaged file makes Pillow and pydicom raise nearly anything
        facts["problem"] = failure_reason(error, {"image": InputPart(source), "name": name})
    return InputFacts(**facts)


def excluded_facts(series: DicomSeries) -> InputFacts:
    """Facts of a series that is left out."""
    facts = _series_facts("-", series, "auto")
    return InputFacts(**{**vars(facts), "geometry": f"left out: {series.excluded}", "preset": None})


def _series_facts(name: str, series: DicomSeries, preset: str) -> InputFacts:
    choice = None
    if not series.colour:
        with contextlib.suppress(UnreadableInputError), readable("the header"):  # said when it is read
            choice = choose_for_series(series, preset)
    split = () if series.split is None else (f"Part of a series that was cut: {series.split}.",)
    return InputFacts(
        name=name,
        kind=f"{series.modality} {series.kind}{' (colour)' if series.colour else ''}",
        frames=len(series.frames),
        size=f"{series.size[0]} x {series.size[1]}",
        geometry=series.geometry.verdict,
        preset=None if choice is None else choice.preset,
        notes=(*split, *series.notes, *(choice.warnings if choice else ())),
        series=series.series_uid,
        path=str(series.frames[0].instance.path),
        description="".join(filter(str.isprintable, text_of(series.header, "SeriesDescription"))) or None,
    )
