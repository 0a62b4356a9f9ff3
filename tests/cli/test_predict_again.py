# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.networks import (
    AnomalyCLIP,
    CalibratedThresholds,
    read_prompts,
    thresholds_path,
    write_prompts,
)
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest
from tests.cli.predict_results import results_of, rows_of, times_of

Predict = Callable[..., int]


def interrupt_at_second_image(patch: pytest.MonkeyPatch) -> None:
    whole = AnomalyCLIP.predict
    calls = []

    def interrupted(self: AnomalyCLIP, image: Any) -> Any:
        calls.append(len(image))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, image)

    patch.setattr(AnomalyCLIP, "predict", interrupted)


def test_changed_settings_need_force(
    picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(picture, "--threshold", "0.5") == 0
    before = times_of(out)
    assert predict(picture, "--threshold", "0.25") == 1
    error = capsys.readouterr().err
    assert "differ in threshold: choose another folder, or set overwrite (--force" in error
    assert error.strip().count("\n") <= 3  # a sentence, no traceback (progress bars write there, too)
    assert "Traceback" not in error
    assert times_of(out) == before
    assert predict(picture, "--threshold", "0.25", "--force") == 0
    assert all(time > before[path] for path, time in times_of(out).items())
    assert rows_of(out)[0]["threshold"] == "0.25"
    pixels = np.asarray(Image.open(next(out.glob("*_mask.png")))) > 0
    heat = np.asarray(Image.open(next(out.glob("*_heat.png")))) / 255
    clear = np.abs(heat - 0.25) > 1 / 510  # what rounding to 8 bits cannot have moved across
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(pixels[clear], heat[clear] >= 0.25)


def test_files_that_are_not_ours_are_kept(picture: Path, predict: Predict, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "rosamund_mask.png").write_text("drawn by hand")
    assert predict(picture, "--keep-names") == 3
    assert (out / "rosamund_mask.png").read_text() == "drawn by hand"
    assert [row["status"] for row in rows_of(out)] == ["failed"]
    assert not (out / "rosamund_heat.png").exists()
    (out / "report.html").write_text("my report")
    assert predict(picture) == 1
    assert (out / "report.html").read_text() == "my report"


def test_interruption_keeps_what_is_finished_and_goes_on(
    picture: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for index in range(2):
        Image.fromarray(np.full((20, 30), 40 * index, np.uint8)).save(picture / f"{index}.png")
    with monkeypatch.context() as patch:
        interrupt_at_second_image(patch)
        assert predict(picture) == 130
    assert "Interrupted: what is finished is kept" in capsys.readouterr().err
    assert [row["status"] for row in rows_of(out)] == ["ok"]
    assert results_of(out)["summary"]["ok"] == 1
    assert (out / "report.html").is_file()
    finished = times_of(out)
    assert predict(picture) == 0
    assert {path: time for path, time in times_of(out).items() if path in finished} == finished
    assert [row["status"] for row in rows_of(out)] == ["ok"] * 3


def test_an_interrupted_run_with_force_is_completed_without_it(
    picture: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    Image.fromarray(np.full((20, 30), 40, np.uint8)).save(picture / "1.png")
    assert predict(picture, "--threshold", "0.5") == 0
    before = times_of(out)
    with monkeypatch.context() as patch:
        interrupt_at_second_image(patch)
        assert predict(picture, "--threshold", "0.25", "--force") == 130
    # Of the two models and settings that the folder holds results of, the tables name one.
    assert sorted((row["status"], row["threshold"]) for row in rows_of(out)) == [("ok", "0.25"), ("unfinished", "")]
    assert [record["threshold"] for record in results_of(out)["inputs"]] == [0.25]
    finished = {path: time for path, time in times_of(out).items() if time > before[path]}
    assert predict(picture, "--threshold", "0.25") == 0
    after = times_of(out)
    assert {path: after[path] for path in finished} == finished
    assert all(time > before[path] for path, time in after.items())
    assert [(row["status"], row["threshold"]) for row in rows_of(out)] == [("ok", "0.25")] * 2


def test_a_changed_file_does_not_keep_the_others_and_is_status_3(
    picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(picture) == 0
    before = times_of(out)
    Image.fromarray(np.full((20, 30), 80, np.uint8)).save(picture / "rosamund.png")
    assert predict(picture) == 3  # also when nothing else is to be done
    Image.fromarray(np.full((20, 30), 40, np.uint8)).save(picture / "second.png")
    assert predict(picture) == 3
    shown = capsys.readouterr()
    assert re.search(r"failed: The output folder holds results of 'frame_\w+' that differ in the input's", shown.out)
    assert "Traceback" not in shown.err
    assert sorted(row["status"] for row in rows_of(out)) == ["failed", "ok"]
    after = times_of(out)
    assert {path: after[path] for path in before} == before
    assert predict(picture, "--force") == 0
    assert [row["status"] for row in rows_of(out)] == ["ok", "ok"]


def test_one_folder_holds_results_of_one_kind(
    picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(np.full((20, 30), 40, np.uint8)).save(other / "b.png")
    assert predict(picture) == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    for options in ([], ["--force"]):
        assert predict(other, "--threshold", "0.25", *options) == 1
        assert "which is not among these inputs, that differ in threshold" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert predict(other) == 0
    assert predict(picture, other, "--threshold", "0.25", "--force") == 0
    assert {record["threshold"] for record in results_of(tmp_path / "out")["inputs"]} == {0.25}


def test_a_killed_run_is_continued(picture: Path, predict: Predict, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(picture) == 0
    (record,) = out.glob("*_record.json")
    state = json.loads(record.read_bytes())
    # Killed while it put the files in place.
    record.write_text(json.dumps({**state, "state": "unfinished", "record": None, "made_with": None}))
    for name in ("scores.csv", "results.json", "report.html"):
        (out / name).unlink()
    before = times_of(out)
    assert predict(picture) == 0
    assert all(time > before[path] for path, time in times_of(out).items())
    assert [row["status"] for row in rows_of(out)] == ["ok"]


def test_a_result_cut_to_nothing_is_made_again(picture: Path, predict: Predict, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(picture) == 0
    (mask,) = out.glob("*_mask.png")
    before = mask.read_bytes()
    mask.write_bytes(b"")
    assert predict(picture) == 0
    assert mask.read_bytes() == before


def test_an_input_edited_at_equal_size_is_noticed(predict: Predict, tmp_path: Path) -> None:
    """Between the places that samples of the file would be taken from."""
    voxels = np.zeros((64, 64, 32), np.float32)
    path = tmp_path / "in" / "v.nii"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    assert predict(path.parent) == 0
    size = path.stat().st_size
    voxels[10:14, 20:24, 16] = 1
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    assert path.stat().st_size == size
    assert predict(path.parent) == 3
    rows = rows_of(tmp_path / "out")
    assert "differ in the input's files" in rows[0]["reason"]
    assert predict(path.parent, "--force") == 0


def test_results_inside_the_input_are_no_inputs(
    study: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    (folder / "a.png").write_bytes(next(study.glob("*.png")).read_bytes())
    Image.fromarray(np.full((20, 30), 40, np.uint8)).save(folder / "b.png")
    predict(folder, out=folder / "results_a")
    capsys.readouterr()
    predict(folder, "--threshold", "0.5", out=folder / "results_b")
    assert "left out: 1 x results of an earlier run" in capsys.readouterr().out
    names = [[record["name"] for record in results_of(folder / f"results_{end}")["inputs"]] for end in "ab"]
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_prompts_saved_again_are_the_same_prompts(
    picture: Path, options: list[str], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tuning that is run again when all is done writes them anew; so does a conversion."""
    place = options.index("--prompts") + 1
    copies = [tmp_path / "again.pt", tmp_path / "again.safetensors"]
    network = read_prompts(prompts)
    for copy in copies:
        write_prompts(network, copy)
    thresholds = CalibratedThresholds(0.5, 0.5, "best_f1", 7, prompts_digest(prompts))
    finished: dict[Path, int] = {}
    for used in (prompts, *copies):
        thresholds.save(thresholds_path(used))
        line = [*options[:place], str(used), *options[place + 1 :]]
        assert main(["predict", str(picture), "-o", str(tmp_path / "out"), *line, "--threshold", "calibrated"]) == 0
        finished = finished or times_of(tmp_path / "out")
        assert times_of(tmp_path / "out") == finished
    (record,) = results_of(tmp_path / "out")["inputs"]
    assert record["threshold_source"] == "calibrated on 7 images (best_f1)"
    thresholds_path(prompts).unlink()


def test_results_of_the_first_version_are_refused(
    picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.jsonl").write_text('{"name":"frame-1_0a1b2c3d","status":"ok"}\n')
    for options in ([], ["--force"]):
        assert predict(picture, *options) == 1
        assert "holds results of version 0.1.0" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["journal.jsonl"]


def test_a_record_changed_by_hand_is_one_sentence_and_force_helps(
    picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(picture) == 0
    (record,) = out.glob("*_record.json")
    record.write_text(record.read_text().replace('"record"', '"rekord"'))
    assert predict(picture) == 3
    assert "cannot be read" in rows_of(out)[0]["reason"]
    assert "error: 'record'" not in capsys.readouterr().err
    assert predict(picture, "--force") == 0
    assert [row["status"] for row in rows_of(out)] == ["ok"]
