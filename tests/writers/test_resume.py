# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai_anomalyclip.writers.input_states import InputStates

from monai_anomalyclip.data.sources import FrameSource
from monai_anomalyclip.writers import InputRecord
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.output_folder import OutputFolder

FINDINGS = Findings.of(np.array([0.5]), np.full((1, 2, 2), 0.5), np.ones((1, 2, 2), bool))


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, FrameSource]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_text(name)
    return {name: FrameSource(tmp_path / f"{name}.png", name) for name in ("a", "b")}


def states_of(tmp_path: Path, sources: dict[str, FrameSource], overwrite: bool = False, **settings: Any) -> InputStates:
    return InputStates(OutputFolder(tmp_path / "out"), sources, lambda: settings, overwrite)


def finish(states: InputStates, name: str, *suffixes: str) -> None:
    states.claim(name)
    outputs = [f"{name}{suffix}" for suffix in suffixes]
    for output in outputs:
        (states.folder.path / output).touch()
    record = InputRecord(
        name=name, source="frame", kind="frame", frames=1, scores=[0.5], anomaly_score=0.5, outputs=outputs
    )
    states.finish(name, record, FINDINGS)


def statuses(states: InputStates) -> dict[str, str]:
    return {name: entry["status"] for name, entry in states.folder.journal.entries.items()}


def test_one_input_after_the_other(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    states = states_of(tmp_path, sources, sigma=4)
    items = [{"name": name} for name in sources]
    assert states.pending(items) == items
    finish(states, "a", "_overlay.png")
    states.fail("b", "cut in /home/quimby/b.png")
    states.fail("b", "again")
    assert (states.written, states.failed) == (["a"], {"b": "cut in [path]"})
    assert statuses(states) == {"a": "ok", "b": "failed"}
    again = states_of(tmp_path, sources, sigma=4)
    assert again.pending(items) == [{"name": "b"}]
    with pytest.raises(FileExistsError, match="sigma"):
        states_of(tmp_path, sources, sigma=1).pending(items)
    with pytest.raises(FileExistsError, match=r"a_overlay\.png exist already"):
        again.claim("a")
    again.fail("a", "exists", journal=False)
    assert again.failed == {"a": "exists"}
    assert statuses(again) == {"a": "ok", "b": "failed"}


def test_what_an_earlier_run_wrote_goes_when_the_new_files_are_there(
    tmp_path: Path, sources: dict[str, FrameSource]
) -> None:
    finish(states_of(tmp_path, sources, sigma=4), "a", "_overlay.png", "_mask.png")
    for _ in range(2):  # the first is killed before it writes anything
        states = states_of(tmp_path, sources, overwrite=True, sigma=1)
        assert len(states.pending([{"name": "a"}])) == 1
        assert statuses(states) == {"a": "started"}
    states.claim("a")
    assert (tmp_path / "out" / "a_mask.png").exists()
    finish(states, "a", "_overlay.png")
    assert not (tmp_path / "out" / "a_mask.png").exists()
    assert states_of(tmp_path, sources, sigma=1).already_done("a")


def test_results_of_a_changed_input_are_kept_and_found_again(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    finish(states_of(tmp_path, sources), "a", "_overlay.png")
    items = [{"name": name} for name in sources]
    sources["a"].paths[0].write_text("changed")
    for _ in range(2):
        states = states_of(tmp_path, sources)
        other, refused = states.pending(items)
        assert (other, refused["name"]) == ({"name": "b"}, "a")
        assert list(states.failed) == ["a"]
        assert statuses(states) == {"a": "failed"}
        with pytest.raises(FileExistsError):
            states.claim("a")
    sources["a"].paths[0].write_text("a")
    states = states_of(tmp_path, sources)
    assert states.pending(items) == [{"name": "b"}]
    assert statuses(states) == {"a": "ok"}
