# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The command line; its work is tested in tests/archive."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dicomweb_client.web import DICOMwebClient

from monai_anomalyclip.archive.dimse import DimseTls, Peer
from monai_anomalyclip.archive.service import Service
from monai_anomalyclip.cli import main
from tests.archive.scenes import free_port
from tests.archive.web_archive import WebArchive, served

PEER = ["--send-to", "127.0.0.1:4242:ORTHANC"]


@pytest.mark.parametrize("words", [["--aet", "A" * 17], ["--aet", " "], ["--aet", "A", "--quiet", "-1"], []])
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", *PEER, *words])
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--send-to", "archive"], "is not HOST:PORT:AE"),
        ([*PEER, "--tls-cert", "a.pem"], "TLS needs all of"),
        ([*PEER, "--bind", "0.0.0.0"], "is not loopback"),
        ([*PEER, "--bind", "0.0.0.0", "--allow-network"], "name who may send"),
    ],
)
def test_what_keeps_it_from_beginning(
    words: list[str],
    message: str,
    options: list[str],
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = ["--bundle", options[1], "--prompts", str(prompts), "--device", "cpu", "--spool", str(tmp_path / "spool")]
    assert main(["serve", "--aet", "ANOMALY", "--port", "0", *words, *model]) == 1
    assert message in capsys.readouterr().err


def test_from_a_sender_to_the_archive(
    options: list[str],
    prompts: Path,
    phantoms: ModuleType,
    certificates: Callable[[str], tuple[Path, Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole node in this process, step by step: by TLS in, by DICOMweb out, and what its page says."""
    files = phantoms.make_series(tmp_path / "ct", count=3, size=(16, 20))
    ca, cert, key = certificates("authority")
    web, port, page = WebArchive(), free_port(), free_port()
    said: list[dict[str, Any]] = []

    def told() -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", page, timeout=300)) as connection:
            connection.request("GET", "/")
            said.append(json.loads(connection.getresponse().read()))

    def work(service: Service, stop: threading.Event) -> None:
        Peer("127.0.0.1", port, "ANOMALY", "CT", DimseTls(cert, key, ca)).send(files[:2])
        assert service.step() == 0  # the archive has one more
        told()
        web.status = lambda method, path: 404 if method == "GET" else 503
        assert service.step() == 0  # it cannot be searched, so it counts as complete; nor does it take anything
        told()
        web.status = lambda method, path: 0
        Peer("127.0.0.1", port, "ANOMALY", "CT", DimseTls(cert, key, ca)).send(files[2:])
        service._again.clear()
        assert service.step() == 1
        told()

    for path in files:
        web.add(path.read_bytes())
    monkeypatch.setattr(Service, "forever", work)
    monkeypatch.setattr(DICOMwebClient, "_is_retriable_http_error", lambda *_: False)  # which takes seconds
    words = ["--aet", "ANOMALY", "--port", str(port), "--health-port", str(page), "--quiet", "0", "--device", "cpu"]
    words += ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(ca), "--spool", str(tmp_path / "spool")]
    with served(web) as url:
        assert main(["serve", "--send-to", url, *words, "--bundle", options[1], "--prompts", str(prompts)]) == 0
    assert f"ANOMALY listens at 127.0.0.1:{port}." in capsys.readouterr().out
    assert [(one["received"], one["waiting"], one["series"]) for one in said] == [(2, 1, 0), (2, 1, 0), (3, 0, 1)]
    assert [one["problem"] for one in said] == ["", "The archive answered 503 (Service Unavailable).", ""]
    assert sorted(web.modalities()) == ["CT", "CT", "CT", "SEG", "SR"]
    for closed in (port, page):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", closed)) != 0
