# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A work list: what one scan of a large folder found, so that each of many processes reads its own inputs alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_anomalyclip.atomic_file import make_private_folder, replaced_when_complete
from monai_anomalyclip.data.dicom import group_instances, scan_files
from monai_anomalyclip.data.dicom.series import DicomSeries, Instance, SkippedFile
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.parts import Part
from monai_anomalyclip.data.sources import DicomSource, FrameSource, NiftiSource, ReadOptions, Source, VideoSource

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

__all__ = ["WorkHeader", "WorkUnit", "read_work_list", "sources_of_units", "units_of", "write_work_list"]

_FORMAT = "monai_anomalyclip work list 1"
_CHANGED = "It is no longer what the work list says: files were moved, changed or removed. Make the list again."


@dataclass(frozen=True)
class WorkHeader:
    """First line of a list.

    Args:
        inputs: number of inputs.
        units: number of lines that follow.
        left_out: how many files the scan left aside, by reason.
    """

    inputs: int
    units: int
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class WorkUnit:
    """What is read together: a file, or a DICOM series with all its stacks. As private as the images.

    Args:
        group: sixteen hexadecimal digits that tell in which part it is (``Source.group``).
        origin: as in :class:`Source`.
        paths: the files, of a series also damaged ones, which its results warn of.
        names: of the results, by number of the page (from 0) or of the stack within its series.
        identity: text that a file is known by.
        among_others: whether it is not the only input.
    """

    group: str
    origin: str
    paths: tuple[str, ...]
    names: Mapping[str, str]
    identity: str = ""
    among_others: bool = True

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> WorkUnit:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            fields = json.loads(line)
            unit = cls(**{**fields, "paths": tuple(map(str, fields["paths"]))})
            int(unit.group, 16)
            if unit.origin not in _READERS or not (unit.paths and unit.names):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise ValueError("A line of the work list cannot be read: make the list again.") from None
        return unit


def units_of(sources: Mapping[str, Source], skipped: Sequence[SkippedFile] = ()) -> list[WorkUnit]:
    """The units of some inputs, in their order.

    Args:
        sources: the inputs by name.
        skipped: files that were left aside: damaged ones go with the series that they belong to or lie beside.
    """
    grouped: dict[str, dict[str, Source]] = {}
    for name, source in sources.items():
        grouped.setdefault(source.group, {})[name] = source
    damaged = [file for file in skipped if file.damaged]
    units = []
    for group, members in grouped.items():
        first = next(iter(members.values()))
        paths = dict.fromkeys(str(path.absolute()) for source in members.values() for path in source.paths)
        names = {str(_number(source)): name for name, source in members.items()}
        if len(names) < len(members):  # files of one name below two folders of one name
            units += [unit for name, source in members.items() for unit in _alone(name, source)]
            continue
        if isinstance(first, DicomSource):
            folders = {Path(path).parent for path in paths}
            uid = first.series.series_uid
            near = (file.path.absolute() for file in damaged if uid == file.series_uid or not file.series_uid)
            paths |= dict.fromkeys(str(path) for path in near if path.parent in folders)
        units.append(WorkUnit(group, first.origin, tuple(paths), names, first.identity, len(sources) > 1))
    return units


def write_work_list(path: str | os.PathLike[str], units: Sequence[WorkUnit], left_out: Mapping[str, int]) -> WorkHeader:
    """Write a list, JSON Lines that only its owner may read; it holds paths and is as private as the images.

    Args:
        path: the file; it appears, or is replaced, as a whole.
        units: see :func:`units_of`.
        left_out: how many files the scan left aside, by reason.

    Raises:
        ValueError: another file lies there.
        OSError: it cannot be written.
    """
    if Path(path).exists():
        _header(path)  # refuses a file of another kind
    make_private_folder(Path(path).absolute().parent)
    header = WorkHeader(sum(len(unit.names) for unit in units), len(units), dict(left_out))
    with replaced_when_complete(path) as unfinished:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"format": _FORMAT, **asdict(header)}) + "\n")
            stream.writelines(f"{unit.to_json()}\n" for unit in units)
    return header


def read_work_list(path: str | os.PathLike[str], part: Part | None = None) -> tuple[WorkHeader, Iterator[WorkUnit]]:
    """Read a list, one unit at a time.

    Args:
        path: what :func:`write_work_list` wrote.
        part: leave out the units of other parts.

    Raises:
        ValueError: it is no such list; when it is read: it is cut short, or a line is damaged.
        OSError: it cannot be read.
    """

    def units() -> Iterator[WorkUnit]:
        count = 0
        with open(path, encoding="utf-8") as stream:
            next(stream)
            for line in stream:
                count += 1
                unit = WorkUnit.from_json(line)
                if part is None or part.holds(unit.group):
                    yield unit
        if count != header.units:
            raise ValueError(f"The work list has {count} of its {header.units} lines: make it again.")

    header = _header(path)
    return header, units()


def _header(path: str | os.PathLike[str]) -> WorkHeader:
    try:
        with open(path, encoding="utf-8") as stream:
            fields = json.loads(stream.readline(1_000_000))
        if fields.pop("format") != _FORMAT:
            raise ValueError
        return WorkHeader(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{Path(path).name!r} is no work list of this program: `monai-anomalyclip list INPUT -o FILE` makes one."
        ) from None


def sources_of_units(units: Sequence[WorkUnit], options: ReadOptions, *, progress: bool = False) -> dict[str, Source]:
    """Read the headers of some units and give their inputs by name, as the scan that made the list gave them.

    One whose files are gone or say something else than they did fails when it is loaded.

    Args:
        units: of a list.
        options: how inputs are read.
        progress: show a progress bar while DICOM headers are read.
    """
    stacks = _stacks([unit for unit in units if unit.origin == "dicom"], progress)
    found: dict[str, Source] = {}
    for unit in units:
        here = stacks.get(id(unit), {})
        for number, name in unit.names.items():
            if unit.origin == "dicom":
                stack = here.get(number)
                source: Source = _LostSource(unit) if stack is None else DicomSource(stack, options)
            else:
                source = _READERS[unit.origin](unit, int(number), options)
            found[name] = source
    return found


def _stacks(units: Sequence[WorkUnit], progress: bool) -> dict[int, dict[str, DicomSeries]]:
    """Per unit its stacks by number."""
    paths = [Path(path) for unit in units for path in unit.paths if os.path.isfile(path)]
    scan = scan_files(paths, progress=progress) if paths else None
    instances: dict[str, list[Instance]] = {}
    skipped: dict[str, list[SkippedFile]] = {}
    for instance in scan.instances if scan else ():
        instances.setdefault(str(instance.path), []).append(instance)
    for file in scan.skipped if scan else ():
        skipped.setdefault(str(file.path), []).append(file)
    found = {}
    for unit in units:
        own = [instance for path in unit.paths for instance in instances.get(path, ())]
        lost = [file for path in unit.paths for file in skipped.get(path, ())]
        stacks, _ = group_instances(own, lost)
        found[id(unit)] = {str(stack.part): stack for stack in stacks if stack.group == unit.group}
    return found


def _number(source: Source) -> int:
    if isinstance(source, DicomSource):
        return source.series.part
    return source.page if isinstance(source, FrameSource) else 0


def _alone(name: str, source: Source) -> list[WorkUnit]:
    paths = tuple(str(path.absolute()) for path in source.paths)
    return [WorkUnit(source.group, source.origin, paths, {str(_number(source)): name}, source.identity)]


def _nifti(unit: WorkUnit, _: int, options: ReadOptions) -> Source:
    try:
        source = NiftiSource(Path(unit.paths[0]), unit.identity, options)
    except OSError:
        return _LostSource(unit)
    source.among_others = unit.among_others
    return source


_READERS: dict[str, Any] = {
    "dicom": None,
    "frame": lambda unit, page, options: FrameSource(Path(unit.paths[0]), unit.identity, page, options),
    "nifti": _nifti,
    "video": lambda unit, _, options: VideoSource(Path(unit.paths[0]), unit.identity, options),
}


class _LostSource(Source):
    """Stands for an input that is not there any more."""

    def __init__(self, unit: WorkUnit) -> None:
        self.origin, self.kind = unit.origin, "volume"  # type: ignore[assignment]
        self.label, self.key, self.group, self.paths = "lost", unit.group, unit.group, ()

    def load(self, start: int = 0, stop: int | None = None) -> MetaTensor:
        """Say so.

        Raises:
            UnreadableInputError: always.
        """
        raise UnreadableInputError(_CHANGED)
