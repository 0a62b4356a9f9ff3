# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of results: which inputs it holds, how files get into it, and the tables and report about all of them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import (
    make_private_folder,
    remove_abandoned,
    unfinished_path,
    write_atomically,
)
from monai_anomalyclip.data.input_files import holds_mark
from monai_anomalyclip.writers.finished import (
    RECORD_SUFFIX,
    DamagedRecordError,
    InputState,
    differences,
    publish,
    read_state,
    write_state,
)
from monai_anomalyclip.writers.folder_tables import FolderTables
from monai_anomalyclip.writers.html_report import KeptFiles, ReportSource, write_html_report
from monai_anomalyclip.writers.record import InputRecord, MadeWith
from monai_anomalyclip.writers.tables import INPUT_COLUMNS, SCORE_COLUMNS, RunDocument, check_table

if TYPE_CHECKING:
    from monai_anomalyclip.writers.overlays import Drawn

__all__ = [
    "DEFAULT_OUTPUTS", "OUTPUT_KINDS", "FolderSummary", "OutputFolder", "parse_output_kinds", "preview_path",
]  # fmt: skip

logger = logging.getLogger(__name__)

DEFAULT_OUTPUTS = ("nifti", "seg", "sr", "png")
"""Written, where they apply, when nothing else is asked for."""

OUTPUT_KINDS = (*DEFAULT_OUTPUTS, "heat16", "map32", "fractional", "levels", "pm", "sc")
"""nifti: map and mask; seg, sr, pm, sc: DICOM segmentation, structured report, parametric map, secondary capture;
fractional, levels: the map as a fractional DICOM segmentation, and as a DICOM label map of three levels;
png: map and mask of a picture; heat16, map32: png and nifti with a map of 16 bits and of float32. Overlay pictures,
films with overlay, tables and the report are always written."""

_MOST_SHOWN, _MOST_LISTED = 10_000, 500  # inputs in the report, and on the screen: inputs.csv holds all
_HEAD = 2**20  # bytes within which our files say that they are ours
_PICTURES = ".report"  # pictures of the report, and what runs left aside
_OWN = ("results.json", "report.html", "NOTICE.txt")

_NOTICE = f"""{RESEARCH_USE_ONLY}

The results in this folder are as identifiable as the images they were made from.

report.html     what was found, for people (of more than 100 inputs the rest in report/); results.json the same for
                programs
*_viewer.html   slices or frames of an input to move through, with the map over them: a preview
inputs.csv      one row per input, the most suspicious first: score, margin of the logits, most suspicious slice, volume
scores.csv      one row per picture; per volume or film one row per slice or frame (counted from 0) and one "all".
                Anomaly scores are not calibrated: they rank images, they are not probabilities of disease.
*_record.json   that an input is finished, with what it was made, and what its files hold: the files above are
                made from these records (monai-anomalyclip report FOLDER makes them again)
*_heat.png      anomaly map of a picture, 8-bit gray: 0 to 255 stands for 0 to 1 (16-bit, 0 to 65535, on request)
*_map.nii.gz    anomaly map of a volume, 0 to 1 in steps of 1/32768 (float32 on request), on the input's grid
*_mask.*        where the map reaches the threshold that scores.csv states
*_seg_*.dcm     the map as DICOM segmentation: fractional, or three levels as a label map, on request
*_seg.dcm       the mask as DICOM segmentation; *_sr.dcm scores as structured report; *_pm.dcm the map; *_sc.dcm
                overlays
*_worst.jpg     the most suspicious slice or frame alone, beside its overlay
*_overlay.*     pictures of the result; slices of NIfTI volumes in radiological convention (the patient's right is on
                the left of axial and coronal slices), as far as the header tells the truth; DICOM as it is stored
"""


def parse_output_kinds(kinds: str | Iterable[str]) -> tuple[str, ...]:
    """Put kinds in their fixed order, each once; ``"default"`` stands for the default ones.

    Args:
        kinds: names, or one text with commas.

    Raises:
        ValueError: an unknown kind, or none.
    """
    names = [name.strip().lower() for name in (kinds.split(",") if isinstance(kinds, str) else kinds)]
    chosen = {kind for name in names for kind in (DEFAULT_OUTPUTS if name == "default" else (name,)) if kind}
    if not chosen or (unknown := chosen - set(OUTPUT_KINDS)):
        wrong = ", ".join(sorted(unknown)) if chosen else "nothing"
        raise ValueError(f"Unknown output {wrong}: choose from default, {', '.join(OUTPUT_KINDS)}.")
    return tuple(kind for kind in OUTPUT_KINDS if kind in chosen)


class FolderSummary(NamedTuple):
    """What tables and report were made of.

    Args:
        document: as ``results.json`` has it, with the inputs of the report's first page alone.
        damaged: why records cannot be read, by name.
        finished: when each finished input was done, in the order of names.
    """

    document: RunDocument
    damaged: dict[str, str]
    finished: list[datetime]


def preview_path(folder: Path, name: str) -> Path:
    """Where what an input's viewer shows is kept in a folder of results, if it is."""
    return folder / _PICTURES / f"{_short(name)}.json"


class OutputFolder:
    """A folder of results. Several processes may write into one, each its own inputs.

    Args:
        path: the folder.
        make: make it if it does not exist, for its owner only, and say in it what it holds.

    Raises:
        ValueError: the folder holds files of another program under the names that this one uses, or results of
            version 0.1.0, or (without `make`) no results.
        OSError: the folder cannot be made or written to.

    Example::

        folder = OutputFolder("results", make=False)
        folder.summarise()  # results.json, CSV files and report, from the records
    """

    def __init__(self, path: str | os.PathLike[str], make: bool = True) -> None:
        self.path = Path(path)
        if not make and not self.path.is_dir():
            raise ValueError(f"There are no results in {str(path)!r}: give the output folder of a run.")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._refuse_older()
            check_table(self.path / "inputs.csv", INPUT_COLUMNS)
            check_table(self.path / "scores.csv", SCORE_COLUMNS)
            for name in _OWN:
                self._refuse_foreign(self.path / name)
            if not make and not any(True for _ in self._names()):
                raise ValueError(f"There are no results in {str(path)!r}: give the output folder of a run.")
            write_atomically(self.path / "NOTICE.txt", _NOTICE.encode())
            remove_abandoned(self.path)
        except OSError as error:
            raise OSError(
                f"Cannot write to the output folder {str(path)!r} ({error.strerror}): choose another one."
            ) from error

    def state(self, name: str) -> InputState | None:
        """What the record of an input says; None where there is none.

        Raises:
            DamagedRecordError: it cannot be read.
        """
        return read_state(self.path, name)

    def put(self, state: InputState) -> None:
        """Write the record of an input."""
        make_private_folder((self.path / state.name).parent)
        write_state(self.path, state)

    def states(self) -> dict[str, InputState]:
        """All records that can be read, by the names of the inputs, sorted; not of results that somebody removed."""
        states = {}
        for name in sorted(self._names()):
            with contextlib.suppress(DamagedRecordError):
                state = self.state(name)
                if state is not None and (state.state != "finished" or state.present(self.path)):
                    states[name] = state
        return states

    def first_states(self, count: int) -> list[InputState]:
        """Some of the records that can be read, whichever are found first."""
        states = []
        for name in itertools.islice(self._names(), count):
            with contextlib.suppress(DamagedRecordError):
                if state := self.state(name):
                    states.append(state)
        return states

    def document(self, names: Iterable[str], made: MadeWith, left_out: Mapping[str, int]) -> RunDocument:
        """What the folder holds of some inputs.

        Args:
            names: of the inputs; those without a record are left out.
            made: what results are made with.
            left_out: how many files were left aside, by reason.
        """
        states = []
        for name in names:
            with contextlib.suppress(DamagedRecordError):
                state = self.state(name)
                states += [state] if state is not None and state.state != "unfinished" else []
        started = [datetime.fromisoformat(state.started) for state in states if state.started]
        records = [record for state in states if (record := state.shown()) is not None]
        return RunDocument.of(records, made, left_out, min(started, default=None))

    def staging(self, name: str) -> Path:
        """Where :meth:`stage` makes its folder."""
        return unfinished_path(self.path / _short(name))

    def stage(self, name: str) -> Path:
        """A hidden folder of this process for the files of an input while they are written, empty."""
        staging = self.staging(name)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        return staging

    def unstage(self, name: str) -> None:
        """Remove what :meth:`stage` made for an input that came to nothing."""
        shutil.rmtree(self.staging(name), ignore_errors=True)

    def publish(self, state: InputState, outputs: Sequence[str]) -> None:
        """:func:`~monai_anomalyclip.writers.finished.publish` from where :meth:`stage` put them."""
        publish(self.path, self.staging(state.name), state, outputs)

    def keep_picture(self, name: str, picture: Drawn, preview: str = "") -> None:
        """Keep what stands for an input in the report: its picture, and what its viewer shows."""
        from PIL import Image

        from monai_anomalyclip.writers.overlays import jpeg, thumbnail  # needs torch, which tables alone do not

        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        write_atomically(self._hidden(f"{_short(name)}.jpg"), jpeg(image), durable=False)
        write_atomically(self._hidden(f"{_short(name)}_small.jpg"), jpeg(thumbnail(image)), durable=False)
        shown = preview_path(self.path, name)
        if preview:
            write_atomically(shown, preview.encode(), durable=False)
        else:
            shown.unlink(missing_ok=True)

    def keep_left_out(self, run: str, left_out: Mapping[str, int]) -> None:
        """Keep how many files a run left aside, for the tables.

        Args:
            run: text that is the same when the same inputs are given again.
            left_out: counts by reason.
        """
        write_atomically(self._hidden(f"left_out-{_short(run)}.json"), json.dumps(dict(left_out)).encode())

    def summarise(
        self, made: MadeWith | None = None, run: str = "", left_out: Mapping[str, int] | None = None
    ) -> FolderSummary:
        """Write ``inputs.csv``, ``scores.csv``, ``results.json`` and ``report.html``.

        Few records at a time are in memory: a folder may hold as many as there are.

        Args:
            made: what a run makes results with, for a folder in which nothing is finished.
            run: text that is the same when the same inputs are given again; with `left_out`.
            left_out: how many files the run left aside, by reason, to be kept.

        Returns:
            what there is; of more than some hundred inputs the most suspicious.

        Raises:
            FileExistsError: the folder holds results that were made in more than one way.
            OSError: the disk is full, the folder has vanished, ...
        """
        try:
            if left_out is not None:
                self.keep_left_out(run, left_out)
            return self._summarise(made)
        except OSError as error:
            if isinstance(error, FileExistsError) and not error.errno:
                raise
            raise OSError(
                f"Tables and report cannot be written to the output folder {str(self.path)!r} ({error.strerror}): what "
                "is finished is kept; `monai-anomalyclip report` makes them once that is fixed."
            ) from error

    def _summarise(self, made: MadeWith | None) -> FolderSummary:
        damaged: dict[str, str] = {}
        first: tuple[str, MadeWith] | None = None
        other = made
        with FolderTables.writing(self.path) as tables:
            for name in sorted(self._names()):
                state = self._known(name, damaged)
                if state is None:
                    continue
                if state.state == "finished" and state.made_with is not None:
                    first = first or (name, state.made_with)
                    self._refuse_two_ways(first, (name, state.made_with))
                other = other or state.made_with
                tables.add(state)
            way = other if first is None else first[1]
            if way is None:
                raise ValueError(f"No record in {str(self.path)!r} says what was found: run predict again.")
            document, ranked = tables.finish(way, self._left_out())
        for reason in damaged.values():
            logger.warning("%s", reason)
        shown = self._write_report(document, ranked, tables)
        return FolderSummary(shown, damaged, tables.finished)

    def _refuse_two_ways(self, first: tuple[str, MadeWith], other: tuple[str, MadeWith]) -> None:
        if changed := differences(first[1], other[1]):
            raise FileExistsError(
                f"The output folder holds results that differ in {', '.join(changed)} ({first[0]!r} and "
                f"{other[0]!r}), but its tables name one model and its settings: move one kind to another folder."
            )

    def _known(self, name: str, damaged: dict[str, str]) -> InputState | None:
        """The record of an input; None for results that somebody removed, "unfinished" for one that is damaged."""
        try:
            state = self.state(name)
        except DamagedRecordError as error:
            damaged[name] = str(error)
            return InputState(name=name, state="unfinished", refused=str(error))
        if state is None or (state.state == "finished" and not state.present(self.path)):
            return None
        return state

    def _write_report(self, document: RunDocument, ranked: Sequence[str], tables: FolderTables) -> RunDocument:
        """Write the report, the most suspicious inputs first; the document with those that a screen has room for."""

        listed = {*ranked[:_MOST_LISTED], *tables.failed[:_MOST_LISTED]}
        records: dict[str, InputRecord] = {}

        def known(names: Sequence[str]) -> list[InputState]:
            found = (tables.pictures.get(name) or self._known(name, {}) for name in names)
            states = [state for state in found if state is not None]
            shown = [(state.name, state.shown()) for state in states if state.name in listed]
            records.update((name, record) for name, record in shown if record is not None)  # read once
            return states

        source = ReportSource(ranked[:_MOST_SHOWN], tables.failed[:_MOST_LISTED], known, self._kept_files)
        write_html_report(document, source, self.path / "report.html")
        return document.model_copy(update={"inputs": tuple(records[name] for name in sorted(records))})

    def _kept_files(self, name: str) -> KeptFiles:
        kept = self.path / _PICTURES / _short(name)
        return KeptFiles(kept.with_suffix(".jpg"), Path(f"{kept}_small.jpg"), preview_path(self.path, name))

    def _left_out(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for path in sorted((self.path / _PICTURES).glob("left_out-*.json")):
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                for reason, count in json.loads(path.read_bytes()).items():
                    counts[reason] = counts.get(reason, 0) + int(count)
        return counts

    def _names(self) -> Iterator[str]:
        """Names of the inputs that have a record."""
        for folder, folders, files in os.walk(self.path):
            folders[:] = [name for name in folders if name[0] != "."]
            for file in files:
                if file.endswith(RECORD_SUFFIX) and file[0] != ".":
                    yield Path(folder, file).relative_to(self.path).as_posix()[: -len(RECORD_SUFFIX)]

    def _hidden(self, name: str) -> Path:
        folder = self.path / _PICTURES
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder / name

    def _refuse_older(self) -> None:
        journal = self.path / "journal.jsonl"
        with contextlib.suppress(FileNotFoundError):
            if journal.is_file() and journal.read_bytes()[:8] in (b"", b'{"name":'):
                raise ValueError(
                    "The output folder holds results of version 0.1.0, which this version can neither go on with nor "
                    "replace: choose another output folder."
                )

    def _refuse_foreign(self, path: Path) -> None:
        if path.exists() and not holds_mark(path, _HEAD):
            raise ValueError(
                f"{path.name!r} in the output folder is not a file of this program: choose another output folder."
            )


def _short(text: str) -> str:
    """Name of a hidden file that stands for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
