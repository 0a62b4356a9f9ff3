# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Records: what was found for one input, and with what; the JSON schemas are made from these models."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

__all__ = [
    "SAFE_NAME",
    "SCHEMA_VERSION",
    "Compared",
    "Fused",
    "Geometry",
    "InputRecord",
    "Intensity",
    "MadeWith",
    "Model",
    "Peak",
    "Place",
    "Record",
    "Sha256",
    "Text",
    "Timings",
    "Tool",
    "caution_of",
    "json_text",
    "redacted",
]

SCHEMA_VERSION = "2.0"
"""Version of the layout. 0.1.0 of this program wrote 1.0."""

_NUMBERS_OVER_LINES = re.compile(r"\[\s+(?:(?:-?\d[\d.eE+-]*|null)(?:,\s+|\s+(?=\])))+\]")


def _plain(value: Any) -> Any:
    """What JSON holds: lists for arrays and tuples, None for NaN and infinities, no half characters in texts."""
    if isinstance(value, str):  # names of damaged files hold lone surrogates
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _harmless(value: Any) -> Any:
    """Refuse absolute paths and UIDs in a text, and in all texts of a mapping or a list."""
    if isinstance(value, str) and redacted(value) != value:
        raise ValueError("the text holds an absolute path or a UID: leave it out, or use redacted()")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _harmless(key), _harmless(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _harmless(entry)
    return value


def _rounded(digits: int) -> AfterValidator:
    return AfterValidator(lambda value: None if value is None else round(value, digits))


Text = Annotated[str, BeforeValidator(_plain), AfterValidator(_harmless)]
Number = Annotated[float | None, BeforeValidator(_plain), _rounded(6)]
Exact = Annotated[float | None, BeforeValidator(_plain)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0), _rounded(3)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Letters and digits of any script; of ASCII no spaces, separators, or what a shell takes for a command.
_LETTERS = "A-Za-z0-9_\u00aa-\U0010ffff"
SAFE_NAME = f"[{_LETTERS}-][{_LETTERS}.-]*(/[{_LETTERS}-][{_LETTERS}.-]*)*"
"""What the name of a result may be: relative paths that do not leave the folder, without hidden files."""
Place = Annotated[str, StringConstraints(pattern=f"^{SAFE_NAME}$")]
Settings = Annotated[dict[str, Any], BeforeValidator(_plain), AfterValidator(_harmless)]


class Record(BaseModel):
    """What all records have in common: they do not change, hold nothing else, and errors quote no value of theirs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, json_schema_serialization_defaults_required=True
    )


class Geometry(Record):
    """Where the frames lie. Spacings in mm; None where they are unknown, never invented."""

    verdict: Text
    spacing: tuple[float, float] | None = Field(default=None, description="Between rows, between columns.")
    spacing_source: Text | None = None
    slice_spacing: Exact = None
    missing_slices: Count = 0
    tilt_degrees: Exact = None


class Intensity(Record):
    """By which preset stored values became gray values, why that one, and what became black and white."""

    preset: Text
    low: Exact = None
    high: Exact = None
    reason: Text = ""


class Peak(Record):
    """A slice or frame, counted from 0, and its anomaly score."""

    index: Count
    score: Number = None
    margin: Number = Field(default=None, description="Abnormal minus normal logit that the score is made from.")
    instance_number: int | None = Field(default=None, description="DICOM Instance Number of the slice.")
    position_mm: Number = Field(default=None, description="DICOM: position along the slice normal, in mm.")


class Compared(Record):
    """How unusual an input is among normal ones, by one way of scoring."""

    method: Literal["anomalyclip", "reference"] = Field(
        description="What scored: AnomalyCLIP (the margin of its logits), or the distance to a reference of normals."
    )
    score: Number = Field(default=None, description="What was compared: the larger, the less like the normals.")
    p_value: Number = Field(default=None, description="null: fewer than four normals, or none of this kind.")
    k: Count = Field(default=0, description="Number of normals: patients, or images that stand alone.")
    smallest_p: Number = Field(default=None, description="What p can be at least with so many, 1 / (k + 1).")
    says: Text = Field(default="", description="What that means, in words.")


class Fused(Record):
    """Two scores made into one, on request and after a gain was measured."""

    rule: Literal["fisher", "geometric"]
    score: Number = Field(default=None, description="In [0, 1], larger where the input is less like the normals.")


class Timings(Record):
    """Seconds spent on one input."""

    read_s: Seconds = 0.0
    score_s: Seconds = 0.0
    write_s: Seconds = 0.0


class Tool(Record):
    """Name and version of the program."""

    name: Text
    version: Text


_DEMONSTRATION = "a8a05476054b29fb2c1fc2b381c7ef3e1ae6892c13c2d7f970010a2c2af1adc9"
_CAUTION = (
    "The model is the demonstration's tiny CLIP, which was trained on synthetic images only: its scores on real scans "
    "are meaningless."
)


def caution_of(backbone_sha256: str | None) -> str:
    """What must be said beside scores of a model; empty where there is nothing.

    The demonstration's backbone is known by its weights, whatever bundle or exported file they came in.
    """
    return _CAUTION if backbone_sha256 == _DEMONSTRATION else ""


class Model(Record):
    """Which network it was."""

    backbone: Text
    backbone_sha256: Sha256 | None = Field(description="Of its weights: names, shapes and float32 values.")
    prompts_sha256: Sha256 | None = Field(
        default=None, description="Of the tuned tensors; null: prompts that were not tuned."
    )
    words: dict[str, tuple[Text, ...]] = Field(default={}, description="Of the normal and the abnormal prompts.")
    settings: Settings = {}

    @property
    def caution(self) -> str:
        """See :func:`caution_of`."""
        return caution_of(self.backbone_sha256)


class MadeWith(Record):
    """What results depend on besides the input, and what they were made on."""

    tool: Tool
    versions: dict[str, str | None] = Field(description="Of Python and libraries; null for an absent one.")
    model: Model
    settings: Settings = Field(description="The options as they were resolved.")
    device: Text


class InputRecord(Record):
    """What was found for one input.

    Values are brought to what JSON holds: NaN and infinities become null; scores, times and volumes are rounded to 6
    decimals. Texts with an absolute path or a UID, and counts that contradict each other, are refused.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"status": {"const": "ok"}}},
            "then": {"properties": {"kind": {"type": "string"}, "scores": {"minItems": 1}}},
            "else": {"properties": {"reason": {"minLength": 1}}},
        }
    )

    name: Place = Field(description="Where the results are below the output folder, without suffix.")
    source: Literal["dicom", "nifti", "frame", "video"]
    kind: Literal["volume", "frame", "cine"] | None = Field(default=None, description="null: it could not be read.")
    modality: Text | None = Field(default=None, description="DICOM's code.")
    study: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")] | None = Field(
        default=None, description="The same for inputs of one DICOM study: digits of a hash, no UID."
    )
    status: Literal["ok", "failed"] = "ok"
    reason: Text = Field(default="", description="Why it failed.")
    files_used: Count = 0
    frames: Count = Field(default=0, description="Number of slices or frames.")
    slice_axis: Annotated[int, Field(ge=0, le=2)] | None = Field(
        default=None, description="Along which a volume is cut."
    )
    plane: Text | None = Field(default=None, description="axial, coronal, sagittal or native.")
    geometry: Geometry | None = None
    transfer_syntaxes: tuple[Text, ...] = ()
    intensity: Intensity | None = None
    split: Text | None = Field(default=None, description="Which part of a series this is, and why it was cut.")
    scores: Annotated[tuple[Number, ...], BeforeValidator(_plain)] = Field(
        default=(), description="One per slice or frame."
    )
    times: Annotated[tuple[Annotated[float, _rounded(6)], ...], BeforeValidator(_plain)] = Field(
        default=(), description="When each frame of a film is shown, in seconds."
    )
    anomaly_score: Number = Field(default=None, description="Of the whole input, 0 to 1. Not calibrated.")
    score_margin: Number = Field(default=None, description="Abnormal minus normal logit that the score is made from.")
    p_value: Number = Field(
        default=None, description="Share of normal references that score as high, where there are some."
    )
    compared: tuple[Compared, ...] = Field(default=(), description="With normal inputs, by each way of scoring.")
    fused: Fused | None = Field(default=None, description="Of both ways of scoring, where that was asked for.")
    map_max: Number = Field(default=None, description="Highest value of the anomaly map.")
    most_suspicious: tuple[Peak, ...] = Field(
        default=(), description="Slices or frames, by score, then margin, map and area."
    )
    threshold: Exact = Field(default=None, description="Value of the map from which a pixel counts as anomalous.")
    threshold_source: Text | None = Field(default=None, description="Where the threshold came from.")
    anomalous_fraction: Exact = Field(default=None, description="Share of pixels at or above the threshold.")
    anomalous_volume_ml: Number = Field(default=None, description="null where a spacing is unknown.")
    timings: Timings | None = None
    warnings: tuple[Text, ...] = Field(default=(), description="What a reader of the results should know.")
    outputs: tuple[Place, ...] = Field(default=(), description="The files, relative to the output folder.")

    @model_validator(mode="after")
    def _check_counts(self) -> InputRecord:
        if self.status == "failed" and not self.reason:
            raise ValueError("a failed input needs a reason")
        if self.status == "ok" and (self.kind is None or not 0 < self.frames == len(self.scores)):
            raise ValueError(
                f"needs a kind and one score per frame, got {self.kind!r} and {len(self.scores)} scores for "
                f"{self.frames} frames"
            )
        if self.times and len(self.times) != self.frames:
            raise ValueError(f"needs a time per frame, got {len(self.times)} for {self.frames} frames")
        if wrong := [peak.index for peak in self.most_suspicious if peak.index >= self.frames]:
            raise ValueError(f"has {self.frames} frames, but its most suspicious ones are {wrong}")
        return self


def json_text(record: Record) -> str:
    """JSON that people can read, too: indented, but lists of numbers on one line."""
    text = record.model_dump_json(indent=2)  # a tenth of the time of the standard library's
    # Line breaks inside of texts are escaped: what matches is a list.
    return _NUMBERS_OVER_LINES.sub(lambda match: f"[{' '.join(match[0][1:-1].split())}]", text) + "\n"


# An absolute path: /x, //host, ~/x, C:\x, \\host, file:. Not "and/or", "</p>", "https://host/x", the bytes b'\\\x01'.
_PATH_START = (
    r"(?:(?<![\w.\-<)/:])//?(?=[^\s/])|(?<=:)/(?=[^\s/])|~[\w.-]*/|\b[A-Za-z]:[\\/]"
    r"|(?<!\\)(?<!b['\"])\\{2,}(?=\w)|\bfile:/)"
)
_QUOTED_PATH = re.compile(rf"""(['"]){_PATH_START}.*?\1""")
_BARE_PATH = re.compile(rf"{_PATH_START}.*")
_UID = re.compile(r"(?<![\d.])\d+(?:\.\d+){4,}")
_PERHAPS = re.compile(r"[/\\]|(?:\.\d+){4}")  # in every path and UID: most texts have neither


def redacted(text: str) -> str:
    """The text with absolute paths and UIDs replaced by ``[path]`` and ``[UID]``: for messages of other libraries.

    A path in quotation marks ends with them; any other takes the rest of its line along, as folders' names may hold
    spaces. Five or more numbers joined by dots are a UID.
    """
    if not _PERHAPS.search(text):
        return text
    return _UID.sub("[UID]", _BARE_PATH.sub("[path]", _QUOTED_PATH.sub(r"\1[path]\1", text)))
