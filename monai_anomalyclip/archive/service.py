# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is done with received studies: wait until they are complete, score, send the results; and tell how it goes."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.archive.dicomweb import ArchiveError
from monai_anomalyclip.archive.results import Predecessor, score_series, seal_of
from monai_anomalyclip.archive.spool import Spool, SpooledStudy, StudyState
from monai_anomalyclip.data.dicom.series import text_of
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource
from monai_anomalyclip.scale.warm_run import WarmRun
from monai_anomalyclip.writers.output_folder import OutputFolder

__all__ = ["Health", "Service", "serve_health"]

logger = logging.getLogger(__name__)

Send = Callable[[Sequence[Path]], None]
Count = Callable[[str, str], "int | None"]
_LONGEST_PAUSE = 600.0


@dataclass
class Health:
    """Numbers for the health page: nothing in them names a patient or a study.

    Args:
        waiting: studies that are not complete yet.
        series: how many were scored and sent.
        failed: how many failed for good.
        problem: the last one, "" when all is well.
    """

    waiting: int = 0
    series: int = 0
    failed: int = 0
    problem: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Service:
    """Works through a spool, one study at a time.

    Args:
        spool: the received images.
        run: the warm model, made with :data:`~monai_anomalyclip.archive.results.ARCHIVE_IDS`.
        send: stores results.
        count: how many images of a series (study UID, series UID) the archive has; None for none to ask.
        quiet: seconds without a new image after which a study counts as complete.
        patience: seconds after which it does although the archive has more images than came.
        keep: seconds that images of a study that is done are kept, so that later ones complete them.
    """

    def __init__(
        self,
        spool: Spool,
        run: WarmRun,
        send: Send,
        count: Count | None = None,
        quiet: float = 60.0,
        patience: float = 1800.0,
        keep: float = 86400.0,
    ) -> None:
        self.spool, self.run, self.send, self.count = spool, run, send, count
        self.quiet, self.patience, self.keep = quiet, patience, keep
        self.health = Health()
        self._again: dict[Path, float] = {}
        self._made = run.made_with(OutputFolder(spool.path / ".empty"))

    def step(self) -> int:
        """Do what is due; returns how many studies were done."""
        done = waiting = 0
        for study in self.spool.studies():
            count, quiet = study.count(), study.quiet_for()
            if study.done_count() == count:
                if quiet > self.keep:
                    study.remove()
                continue
            if quiet < self.quiet or time.monotonic() < self._again.get(study.path, 0.0):
                waiting += 1
                continue
            catalogue = InputCatalogue(study.images, options=self.run.reading, empty=True)
            if quiet < self.patience and not self._complete(catalogue):
                waiting += 1
                continue
            if self._study(study, catalogue):
                study.put_done(count)
                done += 1
            else:
                waiting += 1
        self.health.waiting = waiting
        return done

    def _complete(self, catalogue: InputCatalogue) -> bool:
        """Whether the archive has no more images of these series than came."""
        if self.count is None:
            return True
        for sources in _by_series(catalogue).values():
            header = sources[0].series.header
            own = len({id(one) for source in sources for one in source.series.instances})
            there = self.count(text_of(header, "StudyInstanceUID"), sources[0].series.series_uid)
            if there is not None and there > own:
                return False
        return True

    def _study(self, study: SpooledStudy, catalogue: InputCatalogue) -> bool:
        """Score and send what is new of a study; False when it is to be tried again."""
        state = study.state()
        for group, sources in _by_series(catalogue).items():
            series = sources[0].series
            study_uid = text_of(series.header, "StudyInstanceUID")
            names = [name for name, source in catalogue.sources.items() if source.group == group]
            uids = _instances(sources)
            seal = seal_of(self._made, study_uid, series.series_uid, uids)
            if state.keys.get(group) == seal.key:
                continue
            output = study.path / f"results-{seal.key[:16]}"
            before = state.reports.get(group, [])
            try:
                results = score_series(self.run, catalogue.only(names), output, before)
                if results.done.passing:
                    raise ArchiveError("A series failed for a reason that may pass.")
                self.send(results.files)
            except (ArchiveError, OSError) as error:
                problem = str(error) if isinstance(error, ArchiveError) else type(error).__name__
                self._retry(study, state, problem)
                return False
            finally:
                reports = _reports(output)
                shutil.rmtree(output, ignore_errors=True)
            self.health.series += 1
            self.health.failed += len(results.done.failed)
            self.health.problem = ""
            state = StudyState({**state.keys, group: seal.key}, {**state.reports, group: reports})
            study.put(state)
            replaced = ", which supersedes an earlier result" if before else ""
            logger.info("A series of %d images is done%s.", len(uids), replaced)
        self._again.pop(study.path, None)
        return True

    def _retry(self, study: SpooledStudy, state: StudyState, problem: str) -> None:
        tried = state.tried + 1
        study.put(StudyState(state.keys, state.reports, tried))
        pause = min(max(self.quiet, 1.0) * 2 ** min(tried - 1, 10), _LONGEST_PAUSE)
        self._again[study.path] = time.monotonic() + pause
        self.health.problem = problem
        logger.warning("%s It is tried again in %.0f s.", problem, pause)

    def forever(self, stop: threading.Event, pause: float = 1.0) -> None:
        """Work until an event is set."""
        while not stop.is_set():
            try:
                self.step()
            except Exception as error:  # the receiver goes on; the next step may do better
                self.health.problem = f"A step failed ({type(error).__name__})."
                logger.warning("%s", self.health.problem)
            stop.wait(pause)


def _by_series(catalogue: InputCatalogue) -> dict[str, list[DicomSource]]:
    found: dict[str, list[DicomSource]] = {}
    for source in catalogue.sources.values():
        if isinstance(source, DicomSource):
            found.setdefault(source.group, []).append(source)
    return found


def _instances(sources: Sequence[DicomSource]) -> list[str]:
    return [text_of(one.header, "SOPInstanceUID") for source in sources for one in source.series.instances]


def _reports(output: Path) -> list[Predecessor]:
    found = []
    for path in sorted(output.glob("*_sr.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        uids = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPClassUID, header.SOPInstanceUID)
        found.append(Predecessor(*map(str, uids)))
    return found


def serve_health(port: int, health: Callable[[], Health]) -> ThreadingHTTPServer:
    """Show how it goes as JSON at ``http://127.0.0.1:PORT/``; status 503 while there is a problem.

    Args:
        port: to listen at, on loopback alone.
        health: gives the numbers.
    """

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in ("127.0.0.1", "localhost"):  # a page of elsewhere, by a name of its own
                self.send_error(403)
                return
            now = health()
            numbers = {"waiting": now.waiting, "series": now.series, "failed": now.failed, **now.extra}
            body = json.dumps({**numbers, "problem": now.problem, "notice": RESEARCH_USE_ONLY}).encode()
            self.send_response(503 if now.problem else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Requests are not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
