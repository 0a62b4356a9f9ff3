# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The command line; its work is tested in tests/archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.cli import main

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
