# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Where a result is said to be finished: the record file of an input, which lies beside its results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import make_private_folder, on_disk, sha256_of, sync, write_atomically
from monai_anomalyclip.writers.record import (
    InputRecord,
    MadeWith,
    Place,
    Record,
    Sha256,
    Text,
    json_text,
)

__all__ = [
    "RECORD_SUFFIX",
    "DamagedRecordError",
    "InputState",
    "ResultFile",
    "Slices",
    "alone",
    "differences",
    "publish",
    "read_state",
    "sealed",
    "write_state",
]

RECORD_SUFFIX = "_record.json"
"""End of the names of record files: the results of ``sub/a`` have ``sub/a_record.json``."""

_fcntl: Any = import_module("fcntl") if os.name == "posix" else None
_NO_DIFFERENCE = ("deterministic_uids",)  # settings that change no result


class DamagedRecordError(ValueError):
    """A record file was cut, or changed by somebody else."""


class ResultFile(Record):
    """A file of an input's results, and what is in it."""

    path: Place
    bytes: int
    sha256: Sha256


class Slices(Record):
    """Of each slice or frame: highest value of its map, and share of its mask that is anomalous.

    Margin of the logits, and DICOM's Instance Number and position in mm along the stack: empty where there are none.
    """

    map_max: tuple[float, ...] = ()
    area_fraction: tuple[float, ...] = ()
    margin: tuple[float, ...] = ()
    instance_number: tuple[int | None, ...] = ()
    position_mm: tuple[float | None, ...] = ()


class InputState(Record):
    """What a record file says.

    Attributes:
        state: ``finished``: all of `files` are there, and `record` tells what they hold. ``unfinished``: a run was
            stopped while it put files in place, or was to do the input again; `files` may be replaced. ``failed``:
            likewise, and `record` has the reason.
        refused: why the last run did not take a finished result for one of its input, or nothing.
        content: digest of the input's files, before they were read and after they were scored.
        started: when reading began, ISO 8601 in UTC.
    """

    schema_version: Literal["2.0"] = "2.0"
    research_use: str = RESEARCH_USE_ONLY
    name: Place
    state: Literal["finished", "unfinished", "failed"]
    refused: Text = ""
    content: Sha256 | None = None
    started: str = ""
    made_with: MadeWith | None = None
    files: tuple[ResultFile, ...] = ()
    slices: Slices = Slices()
    record: InputRecord | None = None

    def shown(self) -> InputRecord | None:
        """The record for the tables: a finished result that was refused counts as failed there."""
        if self.record is None or not self.refused:
            return self.record
        kept = {name: getattr(self.record, name) for name in ("name", "source", "kind", "modality", "files_used")}
        return InputRecord(**kept, status="failed", reason=self.refused)

    def present(self, folder: Path) -> bool:
        """Whether any of the files is there: results that somebody removed are not spoken of."""
        return any((folder / file.path).exists() for file in self.files)

    def missing(self, folder: Path) -> list[str]:
        """Those of the files that are not there, or are empty."""
        return [file.path for file in self.files if not _size(folder / file.path)]

    def altered(self, folder: Path) -> list[str]:
        """Those of the files that hold something else than what was written."""
        return [
            file.path
            for file in self.files
            if _size(folder / file.path) != file.bytes or sha256_of(folder / file.path) != file.sha256
        ]


def differences(before: MadeWith, now: MadeWith) -> list[str]:
    """Names of what results of the two could differ in: ``model``, ``version``, or settings."""
    ours, theirs = ({**made.settings, "model": made.model, "version": made.tool.version} for made in (now, before))
    return sorted(key for key in {*ours, *theirs} if key not in _NO_DIFFERENCE and ours.get(key) != theirs.get(key))


def record_path(folder: Path, name: str) -> Path:
    """Where the record of an input lies."""
    return folder / f"{name}{RECORD_SUFFIX}"


def read_state(folder: Path, name: str) -> InputState | None:
    """Read the record of an input; None where there is none.

    Raises:
        DamagedRecordError: it cannot be read; the message quotes nothing of it.
    """
    path = record_path(folder, name)
    try:
        state = InputState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole file"
        raise DamagedRecordError(
            f"The record of {name!r} in the output folder cannot be read ({where}): it was changed by hand or "
            "damaged; remove it, or replace the results (--force; --overwrite True for a bundle)."
        ) from None
    if state.name != name:
        raise DamagedRecordError(f"The record of {name!r} in the output folder is that of another input: remove it.")
    return state


def write_state(folder: Path, state: InputState) -> None:
    """Write the record of an input: it appears, or is replaced, as a whole, and is on the disk by then."""
    write_atomically(record_path(folder, state.name), json_text(state).encode())


def sealed(folder: Path, outputs: Iterable[str]) -> tuple[ResultFile, ...]:
    """Bring files to the disk and say what is in them.

    Args:
        folder: where they lie.
        outputs: relative to it.
    """
    contents = [(output, *on_disk(folder / output)) for output in outputs]
    return tuple(ResultFile(path=output, bytes=size, sha256=digest) for output, size, digest in contents)


def publish(folder: Path, staging: Path, state: InputState, outputs: Sequence[str]) -> None:
    """Put the files of an input in their places, and then its record; call it within :func:`alone`.

    Files that an earlier run wrote for the input, and this one did not, would contradict what lies beside them: they
    are removed. A process that is killed meanwhile leaves a record that says "unfinished" and names all files.

    Args:
        folder: of the results.
        staging: where the files were written.
        state: the record, but for its files.
        outputs: the files, relative to both folders.
    """
    files = sealed(staging, outputs)
    before = None
    with contextlib.suppress(DamagedRecordError):
        before = read_state(folder, state.name)
    known = {file.path: file for file in (before.files if before else ())}
    claimed = {**known, **{file.path: file for file in files}}
    make_private_folder((folder / state.name).parent)
    write_state(folder, InputState(name=state.name, state="unfinished", files=tuple(claimed.values())))
    parents = {(folder / output).parent for output in outputs}
    for parent in parents:
        make_private_folder(parent)
    for output in outputs:
        os.replace(staging / output, folder / output)
    for output in known.keys() - set(outputs):
        (folder / output).unlink(missing_ok=True)
    for parent in parents:
        sync(parent)
    write_state(folder, state.model_copy(update={"files": files}))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from putting files in place, for the moment that takes.

    A system or file system that cannot lock folders goes without: what two processes mixed there has a record that does
    not match, and is done again.
    """
    handle = None
    if _fcntl is not None:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            _fcntl.flock(handle, _fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
