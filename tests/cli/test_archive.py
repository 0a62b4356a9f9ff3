# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The command line; its work is tested in tests/archive."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from dicomweb_client.web import DICOMwebClient

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.plain_messages import INPUTS_FAILED
from tests.archive.web_archive import WebArchive, served


class Refusing(BaseHTTPRequestHandler):
    """An archive that knows nobody."""

    def do_GET(self) -> None:
        self.send_error(401, "CANARY^NAME")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("words", [["--query", "Modality"], ["--query", "=CT"], []])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["archive", "--from", "http://127.0.0.1:1/dicom-web", *words])
    assert left.value.code == 2


def test_what_keeps_it_from_beginning(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = DICOMwebClient.set_http_retry_params
    monkeypatch.setattr(DICOMwebClient, "set_http_retry_params", lambda client, **_: again(client, retry=False))
    model = ["--bundle", options[1], "--prompts", str(prompts), "--device", "cpu", "--state", str(tmp_path / "x.jsonl")]
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    refused = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        for url, message in (
            ("ftp://archive", "is no address of DICOMweb"),
            ("http://me:secret@archive/dicom-web", "must not hold a password"),
            (refused, "The archive answered 401"),
            ("http://127.0.0.1:9/dicom-web", "The archive cannot be reached"),
        ):
            assert main(["archive", "--from", url, "--query", "PatientName=QUIMBY", *model]) == 1
            shown = capsys.readouterr()
            assert message in shown.err
            assert not any(text in shown.out + shown.err for text in ("QUIMBY", "CANARY", "secret"))
    finally:
        server.shutdown()
    assert not (tmp_path / "x.jsonl").exists()


def test_every_night(
    options: list[str],
    prompts: Path,
    phantoms: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is printed, the status, and the file that remembers: nothing found, one scored, one failed, one changed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    model = ["--bundle", options[1], "--prompts", str(prompts), "--device", "cpu"]
    web = WebArchive()
    with served(web) as url:

        def night(*words: str) -> tuple[int, list[str]]:
            status = main(["archive", "--from", url, "--query", "Modality=CT", *model, *words])
            *lines, notice = capsys.readouterr().out.splitlines()
            assert notice == RESEARCH_USE_ONLY
            return status, lines

        assert night() == (0, ["No series was found."])
        whole, damaged = (phantoms.make_series(tmp_path / seed, count=3, size=(16, 20), seed=seed) for seed in "ab")
        for path in damaged:
            image = pydicom.dcmread(path)
            image.PixelData = image.PixelData[:-9]
            image.save_as(path)
        for path in whole + damaged:
            web.add(path.read_bytes())
        target = WebArchive()
        with served(target) as other:
            assert night("--to", other) == (INPUTS_FAILED, ["1 series: failed, 1 series: scored"])
        assert sorted(target.modalities()) == ["SEG", "SR"]
        assert len(web.files) == 6
        assert night() == (INPUTS_FAILED, ["1 series: failed, 1 series: scored"])
        web.withheld = {next(iter(web.files))}
        web.files.pop(next(iter(reversed(web.files))))  # the report, by which it would be known
        changed = "A series changed while it was read, or failed for a reason that may pass."
        assert night() == (1, ["1 series: again, 1 series: failed", f"left for the next run: {changed}"])
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    names = {f"archive-{hashlib.sha256(address.encode()).hexdigest()[:16]}.jsonl" for address in (url, other)}
    assert {path.name for path in files} == names  # by where the results go
    for path in files:
        assert [json.loads(line)["reason"] for line in path.read_text().splitlines()] == ["failed"]
