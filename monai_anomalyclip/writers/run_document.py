# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a run found: ``results.json``, from which reports are made."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.writers.json_values import exactly, json_text, json_value, read_version, rounded, set_field
from monai_anomalyclip.writers.record import SCHEMA_VERSION, InputRecord
from monai_anomalyclip.writers.results import write_atomically

__all__ = ["Model", "RunDocument"]

_DISTRIBUTIONS = ("torch", "monai", "open_clip", "pydicom", "highdicom", "nibabel")


class Model(TypedDict):
    """Which network it was: names, hexadecimal SHA-256 digests, settings."""

    backbone: str
    backbone_sha256: str
    prompts_sha256: str | None  # None: prompts that were not tuned
    words: Mapping[str, Sequence[str]]  # of the "normal" and the "abnormal" prompts
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunDocument:
    """``results.json``: one run with all its inputs, valid once its constructor ends.

    Args:
        model: see :class:`Model`.
        settings: the options as they were resolved; no paths.
        device: such as ``"cpu"`` or ``"cuda:0"``.
        started: when, with a time zone; kept as ISO 8601 text in UTC.
        duration_s: seconds.
        skipped: how many files were left aside, by reason code.
        inputs: the records.
        tool: name and version of this program.
        versions: of Python and the libraries; None for an absent one.

    Raises:
        ValueError: as for :class:`InputRecord`; a time without a zone; two inputs of one name.
    """

    model: Model
    settings: Mapping[str, Any]
    device: str
    started: datetime | str
    duration_s: float
    skipped: Mapping[str, int]
    inputs: Sequence[InputRecord]
    tool: Mapping[str, str] = field(default_factory=lambda: {"name": "monai_anomalyclip", "version": __version__})
    versions: Mapping[str, str | None] = field(default_factory=lambda: _versions())

    def __post_init__(self) -> None:
        started = datetime.fromisoformat(self.started) if isinstance(self.started, str) else self.started
        if started.tzinfo is None:
            raise ValueError(f"The start {started.isoformat()} has no time zone: use datetime.now(timezone.utc).")
        set_field(self, "started", started.astimezone(timezone.utc).isoformat(timespec="seconds"))
        set_field(self, "inputs", tuple(self.inputs))
        for item in dataclasses.fields(self):
            if item.name != "inputs":
                set_field(self, item.name, json_value(getattr(self, item.name), item.name))
        set_field(self, "model", exactly(self.model, list(Model.__annotations__), "model"))
        set_field(self, "duration_s", rounded(self.duration_s, 3))
        for name in ("settings", "skipped"):
            set_field(self, name, dict(sorted(getattr(self, name).items())))
        if twice := [name for name, count in Counter(record.name for record in self.inputs).items() if count > 1]:
            raise ValueError(f"Two inputs are called {twice[0]!r}: every input needs a name of its own.")

    @property
    def summary(self) -> dict[str, int]:
        """Number of inputs, in all and of each status, and of skipped files."""
        status = Counter(record.status for record in self.inputs)
        skipped = sum(self.skipped.values())
        return {"inputs": len(self.inputs), "ok": status["ok"], "failed": status["failed"], "skipped_files": skipped}

    def to_json(self) -> str:
        """The document with the version of its layout and the notice, keys in fixed order."""
        names = ("tool", "versions", "model", "settings", "device", "started", "duration_s", "summary", "skipped")
        values = {name: getattr(self, name) for name in names}
        records = [record.as_dict() for record in self.inputs]
        notice = {"schema_version": SCHEMA_VERSION, "research_use": RESEARCH_USE_ONLY}
        return json_text({**notice, **values, "inputs": records})

    @classmethod
    def from_json(cls, text: str) -> RunDocument:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: no JSON, another version of the layout, other keys, or a value that a field cannot have.
        """
        names = [item.name for item in dataclasses.fields(cls)]
        values = exactly(read_version(text, SCHEMA_VERSION), [*names, "research_use", "summary"], "The results")
        inputs = [InputRecord.from_dict(record) for record in values["inputs"]]
        document = cls(**{**{name: values[name] for name in names}, "inputs": inputs})
        if document.summary != values["summary"]:
            raise ValueError(f"The results count {values['summary']} but hold {document.summary}: they were changed.")
        return document

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the document: the file appears, or is replaced, as a whole."""
        # Lone surrogates (in the names of damaged files) become JSON's own escapes.
        write_atomically(Path(path), self.to_json().encode("utf-8", errors="backslashreplace"))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunDocument:
        """Read a file that :meth:`write` wrote.

        Raises:
            ValueError: as for :meth:`from_json`.
        """
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version({"open_clip": "open_clip_torch"}.get(name, name))
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
