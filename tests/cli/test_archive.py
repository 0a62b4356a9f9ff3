# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The command line; its work is tested in tests/archive."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from monai_anomalyclip.cli import main


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
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], prompts: Path
) -> None:
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
