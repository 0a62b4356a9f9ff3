# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""From one archive to another: every series that has no results yet is fetched, scored, and its results stored.

Series that gave no results are remembered, so that they are not fetched again every night.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_anomalyclip.archive.dicomweb import ArchiveError, DicomWebArchive, FoundSeries
from monai_anomalyclip.archive.results import Seal, score_series, seal_of
from monai_anomalyclip.atomic_file import make_private_folder
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.scale.warm_run import WarmRun
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.record import MadeWith

__all__ = ["LeftOut", "Transfer", "transfer"]

logger = logging.getLogger(__name__)

NOTHING, FAILED, PARTLY = "nothing to score", "failed", "stored, of a part of its files"


@dataclass
class Transfer:
    """What a run did.

    Args:
        counts: number of series that were ``scored``, ``done`` before, ``nothing to score``, ``failed`` for good, or
            left for the next run (``again``).
        problems: sentences about the last, each once.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def again(self, problem: str) -> None:
        """Count a series that the next run is to do."""
        self.counts["again"] += 1
        if problem not in self.problems:
            self.problems.append(problem)


def transfer(
    source: DicomWebArchive, target: DicomWebArchive, query: Mapping[str, str], run: WarmRun, left_out: LeftOut
) -> Transfer:
    """Score the series that a query finds and that have no results in the target, one at a time.

    A series is done when the target holds results of the same set of images, model and settings. One that fails does
    not stop the others. Nothing is kept on this machine but in `left_out`.

    Args:
        source: where images are.
        target: where results go.
        query: see :meth:`DicomWebArchive.search`.
        run: the warm model, made with :data:`~monai_anomalyclip.archive.results.ARCHIVE_IDS`.
        left_out: series that gave nothing.

    Raises:
        ArchiveError: the source cannot be searched.
    """
    done = Transfer()
    with tempfile.TemporaryDirectory(prefix="anomalyclip-") as work:
        made = run.made_with(OutputFolder(Path(work) / "empty"))
        found = source.search(query)
        for number in itertools.count(1):
            try:
                if (series := next(found, None)) is None:
                    break
            except ArchiveError as error:
                if number == 1:
                    raise
                done.again(str(error))  # it vanished in the middle: what is done stays done
                break
            try:
                state = _one(source, target, series, run, made, left_out, Path(work))
            except (ArchiveError, OSError) as error:
                ours = f"{type(error).__name__} on this machine."
                done.again(str(error) if isinstance(error, ArchiveError) else ours)
                state = "again"
            else:
                if state == "again":
                    done.again("A series changed while it was read, or failed for a reason that may pass.")
                else:
                    done.counts[state] += 1
            logger.info("Series %d: %s.", number, state)
    return done


def _one(
    source: DicomWebArchive,
    target: DicomWebArchive,
    series: FoundSeries,
    run: WarmRun,
    made: MadeWith,
    left_out: LeftOut,
    work: Path,
) -> str:
    uids = source.instances(series)
    seal = seal_of(made, series.study_uid, series.series_uid, uids)
    if (reason := left_out.reason(seal.key)) is not None:
        return "done" if reason == PARTLY else reason
    if target.holds(series.study_uid, seal):
        return "done"
    with tempfile.TemporaryDirectory(prefix="series-", dir=work) as folder:
        images = Path(folder) / "images"
        images.mkdir()
        if source.fetch(series, images) != len(set(uids)):
            return "again"
        catalogue = InputCatalogue(images, options=run.reading, empty=True)
        if not catalogue.sources:
            left_out.note(seal.key, NOTHING)
            return NOTHING
        results = score_series(run, catalogue, Path(folder) / "results", target.predecessors(series, seal))
        if results.done.passing:
            return "again"
        target.store(results.files)
        return _noted(seal, results.files, bool(results.done.failed), target.holds(series.study_uid, seal), left_out)


def _noted(seal: Seal, files: tuple[Path, ...], failed: bool, sealed: bool, left_out: LeftOut) -> str:
    if not files:
        left_out.note(seal.key, FAILED)
        return FAILED
    if not sealed:  # files of it are damaged or no images: the results' UIDs tell of the others alone
        left_out.note(seal.key, PARTLY)
    return FAILED if failed else "scored"


class LeftOut:
    """A file with one line per series, by the key of its seal: nothing of a patient, no UID.

    Args:
        path: the file; made when the first is noted.

    Raises:
        ValueError: another file lies there.

    Example:
        >>> LeftOut(Path("state/left_out.jsonl")).reason(seal.key)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reasons: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                self._reasons[entry["key"]] = entry["reason"]
            except (ValueError, TypeError, KeyError):
                if not self._reasons:
                    raise ValueError(f"{path.name!r} is not a list of series that this program left out.") from None

    def reason(self, key: str) -> str | None:
        """Why a series gave nothing; None where it is not known."""
        return self._reasons.get(key)

    def note(self, key: str, reason: str) -> None:
        """Note a series."""
        make_private_folder(self.path.absolute().parent)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "reason": reason}) + "\n")
        self._reasons[key] = reason
