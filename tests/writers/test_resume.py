# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.sources import FrameSource
from monai_anomalyclip.writers import InputRecord
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.record import Model
from monai_anomalyclip.writers.resume import InputChangedError, Resume
from monai_anomalyclip.writers.tables import made_with

FINDINGS = Findings.of(np.array([0.5]), np.full((1, 2, 2), 0.5), np.ones((1, 2, 2), bool))
MODEL = Model(backbone="b", backbone_sha256="0" * 64)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, FrameSource]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_text(name)
    return {name: FrameSource(tmp_path / f"{name}.png", name) for name in ("a", "b")}


def resume(tmp_path: Path, sources: dict[str, FrameSource], overwrite: bool = False, **settings: Any) -> Resume:
    return Resume(OutputFolder(tmp_path / "out"), sources, lambda: made_with(MODEL, settings, "cpu"), overwrite)


def finish(run: Resume, name: str, *suffixes: str, content: str = "", text: str = "x") -> None:
    staging = run.folder.stage(name)
    outputs = [f"{name}{suffix}" for suffix in suffixes]
    for output in outputs:
        (staging / output).write_text(text)
    record = InputRecord(
        name=name, source="frame", kind="frame", frames=1, scores=[0.5], anomaly_score=0.5, outputs=outputs
    )
    run.finish(name, outputs, record, FINDINGS, content or run.sources[name].state())


def statuses(run: Resume) -> dict[str, str]:
    return {name: "refused" if state.refused else state.state for name, state in run.folder.states().items()}


def test_one_input_after_the_other(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    run = resume(tmp_path, sources, sigma=4)
    items = [{"name": name} for name in sources]
    assert run.pending(items) == items
    finish(run, "a", "_overlay.jpg")
    run.fail("b", "cut in /home/quimby/b.png")
    run.fail("b", "again")
    assert (run.written, run.failed) == (["a"], {"b": "cut in [path]"})
    assert statuses(run) == {"a": "finished", "b": "failed"}
    again = resume(tmp_path, sources, sigma=4)
    assert again.pending(items) == [{"name": "b"}]
    with pytest.raises(FileExistsError, match="sigma"):
        resume(tmp_path, sources, sigma=1).pending(items)
    again.fail("a", "exists", keep=False)
    assert again.failed == {"a": "exists"}
    assert statuses(again) == {"a": "finished", "b": "failed"}


def test_what_still_counts(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    finish(resume(tmp_path, sources, sigma=4), "a", "_overlay.jpg", "_mask.png")
    assert resume(tmp_path, sources, sigma=4).already_done("a")
    assert not resume(tmp_path, sources, sigma=4).already_done("b")
    with pytest.raises(FileExistsError, match="of 'a' that differ in axis, sigma: choose another folder") as caught:
        resume(tmp_path, sources, sigma=1, axis=2).already_done("a")
    assert not isinstance(caught.value, InputChangedError)
    sources["a"].paths[0].write_text("c")  # as long as before
    with pytest.raises(InputChangedError, match="of 'a' that differ in the input's files: choose"):
        resume(tmp_path, sources, sigma=4).already_done("a")
    with pytest.raises(FileExistsError, match="that differ in sigma, the input's files") as caught:
        resume(tmp_path, sources, sigma=1).already_done("a")
    assert not isinstance(caught.value, InputChangedError)


@pytest.mark.parametrize("how", ["removed", "empty"])
def test_a_result_that_was_removed_or_cut_to_nothing_is_made_again(
    tmp_path: Path, sources: dict[str, FrameSource], how: str
) -> None:
    finish(resume(tmp_path, sources), "a", "_overlay.jpg", "_mask.png")
    mask = tmp_path / "out" / "a_mask.png"
    mask.unlink() if how == "removed" else mask.write_bytes(b"")
    run = resume(tmp_path, sources)
    assert run.pending([{"name": "a"}]) == [{"name": "a"}]
    run.fail("a", "cannot be read")
    assert statuses(run) == {"a": "refused"}  # what is left of the results stays, and the reason beside it
    run = resume(tmp_path, sources)
    assert run.pending([{"name": "a"}]) == [{"name": "a"}]
    finish(run, "a", "_overlay.jpg", "_mask.png")
    assert mask.read_text() == "x"
    assert resume(tmp_path, sources).already_done("a")
    assert statuses(run) == {"a": "finished"}


def test_a_result_that_somebody_has_changed_is_neither_finished_nor_replaced(
    tmp_path: Path, sources: dict[str, FrameSource]
) -> None:
    finish(resume(tmp_path, sources), "a", "_overlay.jpg", "_mask.png")
    (tmp_path / "out" / "a_mask.png").write_text("y")  # as long as before
    run = resume(tmp_path, sources)
    (refused,) = run.pending([{"name": "a"}])
    assert "Somebody has changed a_mask.png in the output folder" in run.failed["a"]
    with pytest.raises(UnreadableInputError, match=r"a_mask\.png"):
        refused["image"].load()
    assert statuses(run) == {"a": "refused"}
    forced = resume(tmp_path, sources, overwrite=True)
    forced.pending([{"name": "a"}])
    finish(forced, "a", "_overlay.jpg", "_mask.png")
    assert (tmp_path / "out" / "a_mask.png").read_text() == "x"


def test_a_damaged_record_fails_one_input_and_force_replaces_it(
    tmp_path: Path, sources: dict[str, FrameSource]
) -> None:
    finish(resume(tmp_path, sources), "a", "_overlay.jpg")
    (tmp_path / "out" / "a_record.json").write_text('{"name": "a", "status": "ok"}')
    items = [{"name": name} for name in sources]
    run = resume(tmp_path, sources)
    other, refused = run.pending(items)
    assert (other, refused["name"]) == ({"name": "b"}, "a")
    assert "The record of 'a' in the output folder cannot be read (" in run.failed["a"]
    forced = resume(tmp_path, sources, overwrite=True)
    assert forced.pending(items) == items
    finish(forced, "a", "_overlay.jpg")
    assert resume(tmp_path, sources).already_done("a")


def test_one_kind_of_results_per_folder(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    finish(resume(tmp_path, sources, sigma=4), "a", "_overlay.jpg")
    items = [{"name": "b"}]
    assert resume(tmp_path, sources, sigma=4).pending(items) == items
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="'a', which is not among these inputs, that differ in sigma: "):
            resume(tmp_path, sources, overwrite=overwrite, sigma=1).pending(items)
    (tmp_path / "out" / "a_overlay.jpg").unlink()
    assert resume(tmp_path, sources, sigma=1).pending(items) == items


def test_what_an_earlier_run_wrote_goes_when_the_new_files_are_there(
    tmp_path: Path, sources: dict[str, FrameSource]
) -> None:
    finish(resume(tmp_path, sources, sigma=4), "a", "_overlay.jpg", "_mask.png")
    for _ in range(2):  # the first is killed before it writes anything
        run = resume(tmp_path, sources, overwrite=True, sigma=1)
        assert len(run.pending([{"name": "a"}])) == 1
        assert statuses(run) == {"a": "unfinished"}
    assert (tmp_path / "out" / "a_mask.png").exists()
    finish(run, "a", "_overlay.jpg")
    assert not (tmp_path / "out" / "a_mask.png").exists()
    assert resume(tmp_path, sources, sigma=1).already_done("a")


def test_results_of_a_changed_input_are_kept_and_found_again(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    finish(resume(tmp_path, sources), "a", "_overlay.jpg")
    items = [{"name": name} for name in sources]
    sources["a"].paths[0].write_text("c")
    for _ in range(2):
        run = resume(tmp_path, sources)
        other, refused = run.pending(items)
        assert (other, refused["name"]) == ({"name": "b"}, "a")
        assert list(run.failed) == ["a"]
        assert statuses(run) == {"a": "refused"}
    sources["a"].paths[0].write_text("a")
    run = resume(tmp_path, sources)
    assert run.pending(items) == [{"name": "b"}]
    assert statuses(run) == {"a": "finished"}


def test_an_input_that_changes_while_it_is_scored_is_not_recorded(
    tmp_path: Path, sources: dict[str, FrameSource]
) -> None:
    run = resume(tmp_path, sources)
    before = sources["a"].state()
    sources["a"].paths[0].write_text("c")
    with pytest.raises(ValueError, match="changed while it was being scored"):
        finish(run, "a", "_overlay.jpg", content=before)
    assert not (tmp_path / "out" / "a_overlay.jpg").exists()
    assert statuses(run) == {}


def test_the_result_of_another_process_stays_when_it_is_of_the_same_kind(
    tmp_path: Path, sources: dict[str, FrameSource]
) -> None:
    first, second, third = (resume(tmp_path, sources, sigma=sigma) for sigma in (4, 4, 1))
    for run in (first, second, third):
        assert run.pending([{"name": "a"}]) == [{"name": "a"}]
    finish(first, "a", "_overlay.jpg", text="first")
    finish(second, "a", "_overlay.jpg", text="second")
    with pytest.raises(FileExistsError, match="differ in sigma"):
        finish(third, "a", "_overlay.jpg", text="third")
    assert (first.written, second.written, third.written) == (["a"], ["a"], [])
    assert (tmp_path / "out" / "a_overlay.jpg").read_text() == "first"
    assert resume(tmp_path, sources, sigma=4).already_done("a")


def test_files_of_others_are_not_replaced(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    run = resume(tmp_path, sources)
    (tmp_path / "out" / "a_mask.png").write_text("drawn by hand")
    with pytest.raises(FileExistsError, match=r"^a_mask\.png exist already in the output folder") as caught:
        finish(run, "a", "_overlay.jpg", "_mask.png")
    assert str(caught.value).endswith("or set overwrite (--force; --overwrite True for a bundle).")
    assert (tmp_path / "out" / "a_mask.png").read_text() == "drawn by hand"
    assert not (tmp_path / "out" / "a_overlay.jpg").exists()
    finish(resume(tmp_path, sources, overwrite=True), "a", "_overlay.jpg", "_mask.png")
    assert (tmp_path / "out" / "a_mask.png").read_text() == "x"


def test_refused_items_say_why_also_in_a_worker(tmp_path: Path, sources: dict[str, FrameSource]) -> None:
    finish(resume(tmp_path, sources), "a", "_overlay.jpg")
    sources["a"].paths[0].write_text("c")
    (item,) = resume(tmp_path, sources).pending([{"name": "a"}])
    item = pickle.loads(pickle.dumps(item))
    assert (item["name"], item["part"], item["parts"]) == ("a", 0, 1)
    assert (item["image"].source.kind, item["image"].source.key) == ("frame", sources["a"].key)
    with pytest.raises(UnreadableInputError, match="differ in the input's files"):
        item["image"].load()
