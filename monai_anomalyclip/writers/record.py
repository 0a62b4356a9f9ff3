# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What was found for one input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from monai_anomalyclip.writers.json_values import exactly, json_text, json_value, read_version, rounded, set_field
from monai_anomalyclip.writers.results import result_paths

__all__ = ["SCHEMA_VERSION", "Geometry", "InputRecord", "Intensity", "Peak", "Timings"]

SCHEMA_VERSION = "1.0"
"""Version of the layout, which ``results.schema.json`` beside this file describes."""

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "source": ("dicom", "nifti", "frame", "video"),
    "kind": ("volume", "frame", "cine", None),
    "status": ("ok", "failed"),
}


class Geometry(TypedDict):
    """Where the frames lie. Spacings in mm; None where they are unknown, never invented."""

    verdict: str
    spacing: Sequence[float] | None  # between rows, between columns
    spacing_source: str | None
    slice_spacing: float | None
    missing_slices: int
    tilt_degrees: float | None


class Intensity(TypedDict):
    """By which preset stored values became gray values, why that one, and what became black and white."""

    preset: str
    low: float | None
    high: float | None
    reason: str


class Peak(TypedDict):
    """A slice or frame, counted from 0, and its anomaly score."""

    index: int
    score: float | None


class Timings(TypedDict):
    """Seconds spent on one input."""

    read_s: float
    score_s: float
    write_s: float


@dataclass(frozen=True, kw_only=True)
class InputRecord:
    """What was found for one input, valid once its constructor ends.

    Values are brought to what JSON holds: sequences and arrays become lists, NaN and infinities None. Scores, times
    and the volume are rounded to 6 decimals.

    Args:
        name: where the results are below the output folder, without suffix.
        source: ``"dicom"``, ``"nifti"``, ``"frame"`` or ``"video"``.
        kind: ``"volume"``, ``"frame"`` or ``"cine"``; None when the input could not be read.
        modality: DICOM's code, or None.
        status: ``"ok"`` or ``"failed"``.
        reason: why it failed.
        files_used: number of files the input was read from.
        frames: number of slices or frames.
        slice_axis: spatial axis along which a volume is cut, or None.
        plane: what the slices are: ``"axial"``, ``"native"``, ..., or None.
        geometry: see :class:`Geometry`.
        transfer_syntaxes: names of DICOM's transfer syntaxes.
        intensity: see :class:`Intensity`.
        split: which part of a series this is and why it was cut, or None.
        scores: one anomaly score per slice or frame.
        times: when each frame of a cine is shown, in seconds; empty for others.
        anomaly_score: of the whole input. Not calibrated.
        map_max: highest value of the anomaly map.
        most_suspicious: the slices or frames of the highest scores.
        threshold: value of the map from which a pixel counts as anomalous.
        threshold_source: where that came from.
        anomalous_fraction: share of pixels at or above the threshold.
        anomalous_volume_ml: their volume in millilitres; None where a spacing is unknown.
        timings: see :class:`Timings`.
        warnings: sentences that a reader of the results should know.
        outputs: the files that were written, relative to the output folder.

    Raises:
        ValueError: a value that a field cannot have; counts that contradict each other; a name or output that is no
            plain relative path; an absolute path or a UID in any other text.
    """

    name: str
    source: str
    kind: str | None = None
    modality: str | None = None
    status: str = "ok"
    reason: str = ""
    files_used: int = 0
    frames: int = 0
    slice_axis: int | None = None
    plane: str | None = None
    geometry: Geometry | None = None
    transfer_syntaxes: Sequence[str] = ()
    intensity: Intensity | None = None
    split: str | None = None
    scores: Sequence[float | None] = ()
    times: Sequence[float] = ()
    anomaly_score: float | None = None
    map_max: float | None = None
    most_suspicious: Sequence[Peak] = ()
    threshold: float | None = None
    threshold_source: str | None = None
    anomalous_fraction: float | None = None
    anomalous_volume_ml: float | None = None
    timings: Timings | None = None
    warnings: Sequence[str] = ()
    outputs: Sequence[str] = ()

    def __post_init__(self) -> None:
        for place in (self.name, *self.outputs):
            _check_place(place)
        for item in dataclasses.fields(self):
            value = json_value(getattr(self, item.name), item.name, allow_identifiers=item.name in ("name", "outputs"))
            set_field(self, item.name, value)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}.")
        for name, group in (("geometry", Geometry), ("intensity", Intensity), ("timings", Timings)):
            if getattr(self, name) is not None:
                set_field(self, name, exactly(getattr(self, name), list(group.__annotations__), name))
        peaks = [exactly(peak, list(Peak.__annotations__), "most_suspicious") for peak in self.most_suspicious]
        set_field(self, "most_suspicious", peaks)
        for name in ("scores", "times", "anomaly_score", "map_max", "most_suspicious", "anomalous_volume_ml"):
            set_field(self, name, rounded(getattr(self, name), 6))
        set_field(self, "timings", rounded(self.timings, 3))
        self._check_counts()

    def _check_counts(self) -> None:
        if self.status == "failed" and not self.reason:
            raise ValueError(f"{self.name!r} failed: say why (reason).")
        if self.status == "ok" and (self.kind is None or not 0 < self.frames == len(self.scores)):
            raise ValueError(
                f"{self.name!r} needs a kind and one score per frame, got {self.kind!r} and {len(self.scores)} scores "
                f"for {self.frames} frames."
            )
        if self.times and (len(self.times) != self.frames or None in self.times):
            raise ValueError(f"{self.name!r} needs a time per frame, got {len(self.times)} for {self.frames} frames.")
        if wrong := [peak["index"] for peak in self.most_suspicious if not 0 <= peak["index"] < self.frames]:
            raise ValueError(f"{self.name!r} has {self.frames} frames, but its most suspicious ones are {wrong}.")

    def as_dict(self) -> dict[str, Any]:
        """The fields in their fixed order, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputRecord:
        """The record that :meth:`as_dict` gave.

        Raises:
            ValueError: other keys, or a value that a field cannot have.
        """
        values = exactly(values, [item.name for item in dataclasses.fields(cls)], "A record")
        try:
            return cls(**values)
        except (AttributeError, TypeError) as error:  # such as text for a number
            raise ValueError(f"The record {values['name']!r} holds a value of a wrong type ({error}).") from error

    def to_json(self) -> str:
        """The record alone, with the version of its layout."""
        return json_text({"schema_version": SCHEMA_VERSION, **self.as_dict()})

    @classmethod
    def from_json(cls, text: str) -> InputRecord:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: no JSON, another version of the layout, or what :meth:`from_dict` refuses.
        """
        return cls.from_dict(read_version(text, SCHEMA_VERSION))


def _check_place(place: str) -> None:
    try:
        result_paths("", place, ("",))
    except (TypeError, ValueError):  # whose text would repeat the path
        raise ValueError(
            "The name and the outputs of a record must be relative paths of A-Z a-z 0-9 . _ -, not absolute ones."
        ) from None
