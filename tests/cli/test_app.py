# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.cli import main


def test_words_are_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("monai_anomalyclip.app.serving.serve", lambda *words: asked.append(words))
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "model.pt"
    options = ["--bundle", "anomalyclip_demo", "--prompts", "model.pt", "--device", "cpu", "--no-browser"]
    assert main(["app", "-o", "studies", *options, "--port", "8009", "--most-gigabytes", "2"]) == 0
    ((folder, words, port, browse, most),) = asked
    assert (folder, port, browse, most) == (Path("studies"), 8009, False, 2)
    assert words[0] == "--bundle"
    assert Path(words[1]).is_absolute()
    assert words[2:] == ["--prompts", str(prompts), "--device", "cpu"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["app"]) == 1
    assert "pip install 'fastapi>=0.115' 'uvicorn>=0.30'" in capsys.readouterr().err
