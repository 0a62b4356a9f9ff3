# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]


def test_valid_but_odd_pictures_are_what_they_were_made_of(
    script: Script, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """150 of them, and three damaged copies of each; the whole run has thousands."""
    assert script("fuzz").main(["--pictures", "150", "--seed", "3", "--keep", str(tmp_path / "faults")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("150 valid pictures: 150 read, ")
    assert said.rstrip().endswith("0 faults of 0 kinds.")
    assert not (tmp_path / "faults").exists()


def test_a_picture_that_is_read_as_another_is_a_fault(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = script("odd_pictures").make_pnm

    def make_other(source: random.Random) -> object:
        picture = made(source)
        return replace(picture, expected=[255 - page for page in picture.expected])

    monkeypatch.setattr(script("fuzz_pictures"), "MAKERS", (make_other,))
    assert script("fuzz").main(["--pictures", "2", "--keep", str(tmp_path)]) == 1
    assert "2 x make_other: another picture" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1
