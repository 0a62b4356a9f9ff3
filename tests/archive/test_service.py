# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest

from monai_anomalyclip.archive.dicomweb import ArchiveError
from monai_anomalyclip.archive.results import SeriesResults, score_series
from monai_anomalyclip.archive.service import Health, Service, serve_health
from monai_anomalyclip.archive.spool import Spool
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun, WorkDone
from tests.archive.scenes import identifiers, scene


class Archive:
    """What was sent, and how many images of a series it claims to have."""

    def __init__(self) -> None:
        self.objects: list[pydicom.Dataset] = []
        self.holds: int | None = None
        self.gone = False

    def send(self, files: Sequence[Path]) -> None:
        if self.gone:
            raise ArchiveError("The archive cannot be reached.")
        self.objects += [pydicom.dcmread(path) for path in files]

    def count(self, study_uid: str, series_uid: str) -> int | None:
        return self.holds

    def kinds(self) -> list[str]:
        return [one.Modality for one in self.objects]


def age(spool: Spool, seconds: float) -> None:
    """Make all that was received older."""
    for study in spool.studies():
        for path in study.images.iterdir():
            os.utime(path, (time.time() - seconds,) * 2)


def test_a_study_is_scored_when_it_is_complete(
    phantoms: ModuleType, tmp_path: Path, warm: WarmRun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    archive = Archive()
    spool = Spool(tmp_path / "spool")
    service = Service(spool, warm, archive.send, archive.count, quiet=60, patience=1000, keep=5000)
    files = phantoms.make_series(tmp_path / "ct", count=4, size=(32, 40))
    for path in files[:3]:
        assert spool.put(path.read_bytes())
    assert service.step() == 0  # not quiet yet
    age(spool, 61)
    archive.holds = 4
    assert service.step() == 0  # the archive has one more
    assert service.health.waiting == 1
    age(spool, 1001)
    archive.gone = True
    assert service.step() == 0
    assert service.health.problem == "The archive cannot be reached."
    archive.gone = False
    again = Service(spool, warm, archive.send, archive.count, quiet=60, patience=1000, keep=5000)  # after a crash
    assert again.step() == 1
    assert archive.kinds() == ["SEG", "SR"]  # patience has ended
    assert again.step() == 0
    for path in files[:3]:  # an archive that forwards all it has
        assert spool.put(path.read_bytes())
    for one in archive.objects:  # and our own results
        buffer = pydicom.filebase.DicomBytesIO()
        one.save_as(buffer, enforce_file_format=True)
        assert not spool.put(buffer.getvalue())
    assert again.step() == 0
    assert spool.put(files[3].read_bytes())
    age(spool, 61)
    assert again.step() == 1  # a later slice makes new results
    assert archive.kinds() == ["SEG", "SR"] * 2
    first, second = archive.objects[1], archive.objects[3]
    assert "PredecessorDocumentsSequence" not in first
    item = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert item.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert len(archive.objects[2].ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 4
    assert "which supersedes an earlier result" in caplog.text
    assert [text for text in identifiers(tmp_path / "ct") if text in caplog.text] == []
    age(spool, 5001)
    again.step()
    assert list(spool.studies()) == []
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.suffix == ".dcm"]


def test_health_page_is_for_this_machine(tmp_path: Path) -> None:
    health = Health(waiting=2, series=3)
    server = serve_health(0, lambda: health)
    port = server.server_address[1]

    def ask(host: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()

    try:
        assert server.server_address[0] == "127.0.0.1"
        status, body = ask(f"127.0.0.1:{port}")
        assert (status, json.loads(body)["waiting"], json.loads(body)["series"]) == (200, 2, 3)
        health.problem = "The archive cannot be reached."
        assert ask(f"localhost:{port}")[0] == 503
        assert ask("evil.example")[0] == 403
    finally:
        server.shutdown()


def test_what_is_tried_again(
    phantoms: ModuleType, tmp_path: Path, warm: WarmRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two series the second fails for a reason that may pass: the first is not scored, nor sent, twice."""
    archive, spool = Archive(), Spool(tmp_path / "spool")
    service = Service(spool, warm, archive.send, quiet=60)
    for seed in ("a", "b"):
        for path in phantoms.make_series(tmp_path / "ct", count=3, size=(16, 20), seed=seed):
            spool.put(path.read_bytes())
    age(spool, 61)
    scored: list[int] = []

    def score(run: WarmRun, catalogue: InputCatalogue, *words: Any) -> SeriesResults:
        scored.append(len(catalogue.sources))
        if len(scored) == 2:
            return SeriesResults((), WorkDone(failed={"ct": "no memory"}, passing=frozenset({"ct"})))
        return score_series(run, catalogue, *words)

    monkeypatch.setattr("monai_anomalyclip.archive.service.score_series", score)
    assert service.step() == 0
    assert (service.health.series, service.health.waiting) == (1, 1)
    assert service.health.problem == "A series failed for a reason that may pass."
    assert service.step() == 0  # not yet
    again = Service(spool, warm, archive.send, quiet=60)
    assert again.step() == 1
    assert (scored, archive.kinds()) == ([1] * 3, ["SEG", "SR"] * 2)
    assert len({one.ReferencedSeriesSequence[0].SeriesInstanceUID for one in archive.objects[::2]}) == 2
    assert again.health.problem == ""


def test_a_step_that_fails_does_not_end_it(
    tmp_path: Path, warm: WarmRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service, stop, steps = Service(Spool(tmp_path), warm, Archive().send), threading.Event(), []

    def step() -> int:
        steps.append(service.health.problem)
        if len(steps) == 2:
            stop.set()
        raise RuntimeError("CANARY^NAME")

    monkeypatch.setattr(service, "step", step)
    service.forever(stop, pause=0)
    assert steps == ["", "A step failed (RuntimeError)."]
    assert "CANARY" not in caplog.text


@pytest.mark.nightly
def test_a_node_with_a_real_archive(phantoms: ModuleType, tmp_path: Path, options: RunOptions) -> None:
    phantoms.make_series(tmp_path / "ct", count=4, size=(32, 40))
    phantoms.make_series(tmp_path / "mr", count=3, size=(32, 40), modality="MR", seed="mr")
    seen = scene("node", tmp_path, options)
    assert seen["received"]
    assert seen["first"]
    assert seen["after forwarding"] == [2 + 2, 1]
    assert seen["grown"]
    assert seen["modalities"] == {"CT": 1, "SEG": 2, "SR": 2}
    assert seen["wrong AE"]
    assert seen["wrong AE of the archive"].startswith("The archive rejected the association")
    assert seen["sent"] == 3
    assert seen["vanished"]
    assert seen["back"]
    assert seen["health"]["series"] == 3
    assert seen["status"] == 143
    assert "listens at 127.0.0.1:11112" in seen["said"]
    assert [text for text in identifiers(tmp_path) if text in seen["said"]] == []


@pytest.mark.nightly
def test_a_node_that_stores_by_the_web(phantoms: ModuleType, tmp_path: Path, options: RunOptions) -> None:
    """Killed in the middle of an image: the one before is there, that one is not, and the rest supersedes."""
    phantoms.make_series(tmp_path / "ct", count=4, size=(32, 40))
    phantoms.make_series(tmp_path / "mr", count=3, size=(256, 256), modality="MR", seed="mr")
    seen = scene("stow", tmp_path, options)
    assert seen["taken"] == 2
    assert seen["waits"]
    assert seen["once"]
    assert (seen["acknowledged"], seen["kept"]) == (1, 1)
    assert seen["after the kill"]
    assert seen["again"] == 3
    assert seen["completed"]
    assert seen["modalities"] == {"CT": 1, "SEG": 3, "SR": 3}
    assert seen["predecessors"] == [0, 0, 1]
    assert seen["health"]["problem"] == ""
    assert "which supersedes an earlier result" in seen["said"]
    assert [text for text in identifiers(tmp_path) if text in seen["said"]] == []
