# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from monai_anomalyclip.app.studies import Workplace
from tests.app.conftest import Scored


def test_studies_are_found_again(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "app")
    study = place.new("One", "/data/x", ("--threshold", "0.4"))
    study.change(state="finished", names=("a",))
    (tmp_path / "app" / "studies" / "0123456789abcdef").mkdir()  # one that was not finished being made
    (tmp_path / "app" / "studies" / "foreign").mkdir()
    again = Workplace(tmp_path / "app")
    assert {key: found.record for key, found in again.studies.items()} == {study.record.id: study.record}
    assert again.studies[study.record.id].inputs == Path("/data/x")
    assert stat.S_IMODE((tmp_path / "app").stat().st_mode) == 0o700
    assert stat.S_IMODE((study.folder / "study.json").stat().st_mode) == 0o600
    again.remove(again.studies[study.record.id])
    assert not study.folder.exists()
    assert not Workplace(tmp_path / "app").studies


def test_records_are_read_anew_when_they_change(scored: Callable[[], Scored]) -> None:
    _, study, _ = scored()
    states = study.states()
    assert len(states) == 2
    name = next(iter(states))
    first = study.state(name)
    assert first is not None
    assert study.state(name) is first
    path = study.results / f"{name}_record.json"
    path.write_text("{}")
    assert study.state(name) is None
    path.unlink()
    assert study.state(name) is None
