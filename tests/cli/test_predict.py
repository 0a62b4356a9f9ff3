# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli import main
from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.networks import (
    AnomalyCLIP,
    CalibratedThresholds,
    read_prompts,
    thresholds_path,
    write_prompts,
)
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest

Predict = Callable[..., int]


@pytest.fixture
def predict(options: list[str], tmp_path: Path) -> Predict:
    """Run `predict` with results in ``out`` below the test's folder."""

    def run(*arguments: Any, out: Path | None = None) -> int:
        return main(["predict", *map(str, arguments), "-o", str(out or tmp_path / "out"), *options])

    return run


def results_of(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "results.json").read_text())
    return document


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def times_of(out: Path) -> dict[Path, int]:
    """When the results of inputs were written."""
    own = ("inputs.csv", "scores.csv", "results.json", "report.html", "NOTICE.txt")
    paths = [path for path in out.rglob("*") if path.is_file() and path.name not in own and ".report" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in paths if not path.name.endswith("_record.json")}


def test_a_mixture_is_scored_and_one_bad_input_is_status_3(
    study: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG, logger="monai_anomalyclip"):
        assert predict(study) == 3
    shown = capsys.readouterr()
    names = [record["name"] for record in results_of(out)["inputs"]]
    assert [re.sub("_[0-9a-f]{16}$", "", name) for name in sorted(names)] == [
        "ct", "ct", "frame", "frame", "us", "volume",
    ]  # fmt: skip
    status = {record["name"]: record["status"] for record in results_of(out)["inputs"]}
    (bad,) = (name for name in names if status[name] == "failed")
    assert bad.startswith("frame_")
    assert re.search(rf"^{bad} .*failed: Cannot read '{bad}'", shown.out, re.MULTILINE)
    assert "left out: 1 x localizer series" in shown.out
    assert f"Report: {out / 'report.html'}" in shown.out
    assert RESEARCH_USE_ONLY in shown.out
    for name in names:
        assert (out / f"{name}_overlay.{'mp4' if name.startswith('us') else 'jpg'}").is_file() == (name != bad)
    assert len(list(out.glob("ct_*_seg.dcm"))) == len(list(out.glob("ct_*_sr.dcm"))) == 2
    assert len(list(out.glob("ct_*_map.nii.gz"))) == 1  # none for the tilted one
    assert not list(out.glob("*_pm.dcm"))

    # Nothing of a path, a file name or a header, but for DICOM objects, which hold the patient's data by design.
    texts = [shown.out, shown.err, caplog.text]
    for path in (path for path in out.rglob("*") if path.is_file()):
        texts.append(path.relative_to(out).as_posix())
        if path.suffix != ".dcm":
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            texts.append(re.sub("base64,[A-Za-z0-9+/=]+", "", content.decode("latin-1")))
    for secret in ("quimby", "rosamund", "1.2.840", "1.2.826", "CANARY"):
        assert not [text for text in texts if secret.lower() in text.lower()], secret

    # The second run leaves out what is finished and tries what failed again.
    before = times_of(out)
    (study / "quimby.png").write_bytes((study / "rosamund.png").read_bytes())
    assert predict(study) == 0
    after = times_of(out)
    assert {path: after[path] for path in before} == before
    assert len(list(out.glob(f"{bad}_*.[jp][np]g"))) == 3
    assert {record["status"] for record in results_of(out)["inputs"]} == {"ok"}
    assert [record["name"] for record in results_of(out)["inputs"]] == names
    assert predict(study, "--resume") == 0
    assert times_of(out) == after


def test_a_damaged_file_that_is_left_out_is_status_3(
    picture: Path, predict: Predict, phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole,) = phantoms.make_series(tmp_path / "ct", count=1, size=(32, 40))
    (tmp_path / "bad.dcm").write_bytes(whole.read_bytes()[:400])
    inputs = (tmp_path / "bad.dcm", picture / "rosamund.png")
    assert predict(*inputs) == 3
    assert "left out: 1 x damaged header" in capsys.readouterr().out
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["ok"]
    assert predict(*inputs) == 3  # though nothing is to be done
    assert main(["inspect", *map(str, inputs)]) == 3
    (tmp_path / "notes").write_text("no DICOM at all")  # with the suffix .dcm it would be a damaged file
    inputs = (tmp_path / "notes", picture / "rosamund.png")
    assert predict(*inputs) == 0
    assert main(["inspect", *map(str, inputs)]) == 0


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


def test_outputs_names_and_several_inputs(picture: Path, predict: Predict, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "rosamund.png").write_bytes((picture / "rosamund.png").read_bytes())
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7), dtype=np.float32), np.eye(4)), other / "v.nii")
    out = tmp_path / "out"
    inputs = (picture / "rosamund.png", other)
    assert predict(*inputs, "--keep-names", "--outputs", "nifti", "--slice-axis", "0") == 0
    files = {path.relative_to(out).as_posix() for path in times_of(out) if ".report" not in path.parts}
    pictures = {file for file in files if file.startswith("rosamund_")}
    assert len(pictures) == 2  # the two of one name both
    assert all(file.endswith("_overlay.jpg") for file in pictures)
    assert files - pictures == {"v_map.nii.gz", "v_mask.nii.gz", "v_overlay.jpg", "v_worst.jpg"}
    assert len([row for row in rows_of(out) if row["name"] == "v"]) == 5 + 1  # slices along the first axis


def test_series_and_dicom_options(study: Path, predict: Predict, tmp_path: Path, phantoms: ModuleType) -> None:
    uid = str(pydicom.dcmread(next((study / "1.2.840").glob("tilt*.dcm"))).SeriesInstanceUID)
    arguments = ["--series", uid, "--preset", "ct-lung", "--sheared-nifti", "--outputs", "default,pm,sc"]
    identifiers = []
    for name in ("a", "b"):
        assert predict(study, *arguments, "--deterministic-uids", out=tmp_path / name) == 0
        (record,) = results_of(tmp_path / name)["inputs"]
        assert record["intensity"]["preset"] == "ct-lung"
        suffixes = {output.replace(record["name"], "") for output in record["outputs"]}
        assert suffixes == {
            "_map.nii.gz", "_mask.nii.gz", "_overlay.jpg", "_worst.jpg", "_seg.dcm", "_sr.dcm", "_pm.dcm", "_sc.dcm",
        }  # fmt: skip
        identifiers.append(
            {path.name: str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / name).glob("*.dcm")}
        )
    assert identifiers[0] == identifiers[1]
    localizer = str(pydicom.dcmread(next((study / "1.2.840").glob("loc*.dcm"))).SeriesInstanceUID)
    assert predict(study, "--series", localizer, out=tmp_path / "c") == 0
    assert [record["frames"] for record in results_of(tmp_path / "c")["inputs"]] == [1]


def test_every_other_frame_of_a_video(predict: Predict, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "rosamund.mkv"), "w") as film:
        stream = film.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        for index in range(7):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 30 * index, np.uint8), "rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    assert predict(tmp_path / "rosamund.mkv", "--stride", "2") == 0
    (record,) = results_of(tmp_path / "out")["inputs"]
    assert record["times"] == pytest.approx([0, 0.2, 0.4, 0.6], abs=2e-3)
    assert [output.replace(record["name"], "") for output in record["outputs"]] == [
        "_overlay.mp4",
        "_frames.csv",
        "_worst.jpg",
    ]
    with av.open(str(tmp_path / "out" / record["outputs"][0])) as film:
        assert len(list(film.decode(video=0))) == 4


def test_reading_ahead_and_another_precision(study: Path, predict: Predict, tmp_path: Path) -> None:
    common = (study, "--deterministic-uids")
    assert [predict(*common, out=tmp_path / "plain"), predict(*common, "--workers", "2", out=tmp_path / "ahead")] == [
        3,
        3,
    ]
    assert predict(*common, "--precision", "bfloat16", out=tmp_path / "coarse") == 3
    told = [results_of(tmp_path / folder) for folder in ("plain", "ahead", "coarse")]
    for one in told[1:]:
        assert [record["name"] for record in one["inputs"]] == [record["name"] for record in told[0]["inputs"]]
    files = {path.relative_to(tmp_path / "plain") for path in times_of(tmp_path / "plain")}
    assert len(files) > 15
    for file in files:
        plain, ahead = ((tmp_path / folder / file).read_bytes() for folder in ("plain", "ahead"))
        if file.suffix == ".dcm":  # holds the time of day
            plain, ahead = (pydicom.dcmread(io.BytesIO(content)).get("PixelData", b"") for content in (plain, ahead))
        assert ahead == plain, file
    scores = [
        [float(row["anomaly_score"]) for row in rows_of(tmp_path / folder) if row["anomaly_score"]]
        for folder in ("plain", "coarse")
    ]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=5e-3)
    with pytest.raises(SystemExit):
        predict(study, "--workers", "-1")


def test_an_unknown_series_is_one_sentence(study: Path, predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(study, "--series", "1.2.3") == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: Series 1.2.3 is not among the 4 series")


def interrupt_at_second_image(patch: pytest.MonkeyPatch) -> None:
    whole = AnomalyCLIP.predict
    calls = []

    def interrupted(self: AnomalyCLIP, image: Any) -> Any:
        calls.append(len(image))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, image)

    patch.setattr(AnomalyCLIP, "predict", interrupted)


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


def test_what_keeps_a_run_from_beginning(
    picture: Path, predict: Predict, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> str:
        assert main(["predict", *arguments]) == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        return last

    out = ["-o", str(tmp_path / "out")]
    bundle = ["--bundle", str(Path(__file__).parents[2] / "bundles" / "anomalyclip_demo")]
    assert "There is no bundle at" in error(str(picture), *out, "--bundle", str(tmp_path))
    assert "There are no prompts at" in error(str(picture), *out, *bundle, "--prompts", str(tmp_path / "x.pt"))
    assert "Cannot write to the output folder" in error(
        str(picture), "-o", "/proc/out", *bundle, "--prompts", str(prompts)
    )
    capsys.readouterr()
    assert predict(tmp_path / "absent") == 1
    assert "does not exist: give a file or a folder" in capsys.readouterr().err
    assert predict(picture, out=picture) == 1
    assert "Results cannot go into the input folder" in capsys.readouterr().err
    assert predict(picture, "--preset", "ct-brian") == 1
    assert "There is no intensity preset 'ct-brian'" in capsys.readouterr().err
    assert predict(picture, "--threshold", "nan") == 1
    assert "threshold must lie in [0, 1], got nan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "in"],
        ["predict", "in", "-o", "out", "--outputs", "jpeg"],
        ["predict", "in", "-o", "out", "--resume", "--force"],
        ["predict", "in", "-o", "out", "--slice-axis", "3"],
        ["predict", "in", "-o", "out", "--preset", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--preset", "@device"],
        ["predict", "in", "-o", "out", "--series", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--device", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--device", "%bundle_root"],
        ["predict", "in", "-o", "out", "--outputs", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--threshold", "$1"],
        ["predict", "in", "-o", "out", "--nifti-form", "$1"],
    ],
)
def test_wrong_usage_is_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["$__import__('os').mkdir('pwned')", "@device", "%bundle_root", "a@#b", "#1 [x]", "ü'\"\\n"]
)
def test_paths_that_look_like_expressions_are_paths(
    name: str, picture: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI evaluates texts that begin with $, @ or %, and replaces # wherever it stands."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    picture.rename(name)
    Path(f"{name}.pt").write_bytes(Path(options[options.index("--prompts") + 1]).read_bytes())
    assert main(["predict", name, *options, "-o", f"{name}.out", "--prompts", f"{name}.pt"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == sorted([name, f"{name}.out", f"{name}.pt"])
    assert [row["status"] for row in rows_of(Path(f"{name}.out"))] == ["ok"]


def test_every_option_reaches_the_bundle_and_no_other(
    picture: Path, tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(RuntimeError):
        pass

    seen: dict[str, Any] = {}

    def workflow(config: list[str], **overrides: Any) -> None:
        seen.update(overrides, config=config)
        raise Stopped("stopped")

    def paths(literal: str) -> Any:
        return ast.literal_eval(literal.removeprefix("$"))

    monkeypatch.setattr(monai.bundle, "ConfigWorkflow", workflow)
    fixed = {"config", "workflow_type", "logging_file", "bundle_root", "dataset_dir", "output_dir"}
    bundle = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"
    common = ["predict", str(picture), "-o", str(tmp_path / "out"), "--bundle", str(bundle)]
    assert main(common) == 1
    assert set(seen) == fixed  # the bundle's own settings hold for the rest
    assert [paths(literal) for literal in seen["dataset_dir"]] == [str(picture)]
    assert paths(seen["output_dir"]) == str(tmp_path / "out")
    assert seen["config"] == [str(bundle / "configs" / "inference.json")]
    seen.clear()
    overlay = tmp_path / "overlay.json"
    assert main([
        *common, "--prompts", str(prompts), "--threshold", "0", "--outputs", "sc,default", "--slice-batch-size", "3",
        "--device", "cuda:1", "--sheared-nifti", "--deterministic-uids", "--force", "--series", "1.2", "--series", "3",
        "--include", "secondary-capture", "--exclude", "*scout*",
        "--keep-names", "--slice-axis", "0", "--preset", "dicom", "--nifti-form", "qform", "--time-point", "0",
        "--stride", "5", "--precision", "bfloat16", "--compile",
        "--workers", "3", "--config", str(overlay), "--verbose",
    ]) == 1  # fmt: skip
    assert seen.pop("config") == [str(bundle / "configs" / "inference.json"), str(overlay)]
    assert paths(seen.pop("prompts")) == str(prompts)
    assert {key: value for key, value in seen.items() if key not in fixed} == {
        "threshold": 0.0,
        "outputs": ["nifti", "seg", "sr", "png", "sc"],
        "slice_batch_size": 3,
        "workers": 3,
        "precision": "bfloat16",
        "compile": True,
        "device": "cuda:1",
        "sheared_nifti": True,
        "deterministic_uids": True,
        "overwrite": True,
        "series": ["1.2", "3"],
        "include": ["secondary-capture"],
        "exclude_patterns": ["*scout*"],
        "keep_names": True,
        "slice_axis": 0,
        "reading#preset": "dicom",
        "reading#nifti_form": "qform",
        "reading#time_point": 0,
        "reading#stride": 5,
    }
    ids = set(json.loads((bundle / "configs" / "inference.json").read_text()))
    assert {key.partition("#")[0] for key in seen if key not in ("workflow_type", "logging_file")} <= ids


def test_links_are_written_apart_from_the_results(
    noise_picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(noise_picture, "--links", tmp_path / "out" / "links.csv") == 1
    assert "would lie in a folder of results" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # it was said before anything was read
    assert predict(noise_picture, "--links", tmp_path / "links.csv") == 0
    with (tmp_path / "links.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    with (tmp_path / "out" / "inputs.csv").open(newline="") as stream:
        (ranked,) = csv.DictReader(stream)
    assert (row["name"], Path(row["path"])) == (ranked["name"], noise_picture.resolve())
    # The margin is the logit of the score, p / (1 - p), as far as the digits of the table go.
    score = float(ranked["anomaly_score"])
    assert float(ranked["score_margin"]) == pytest.approx(
        math.log(score / (1 - score)), abs=1e-6 + 1e-6 / (score * (1 - score))
    )


@pytest.mark.parametrize("workers", ["-1", "1.5", "257", "1" + "0" * 22, "²"])
def test_a_number_of_workers_that_is_none(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["predict", "in", "-o", "out", f"--workers={workers}"])
    assert left.value.code == 2
    assert "0 to 256" in capsys.readouterr().err


@pytest.mark.parametrize("bundle", ["anomalyclip_demo", "anomalyclip"])
def test_shipped_bundles_and_their_copies_are_private(bundle: str, tmp_path: Path) -> None:
    assert main(["copy-bundle", bundle, str(tmp_path / "mine")]) == 0
    assert json.loads((tmp_path / "mine" / "configs" / "inference.json").read_text())["keep_names"] is False


def test_an_input_has_one_name_in_inspect_and_predict(
    picture: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"keep_names": True}))
    private, kept = list(InputCatalogue(picture).sources), ["rosamund"]
    assert re.fullmatch(r"frame_[0-9a-f]{16}", private[0])
    for number, (said, changed, names) in enumerate(
        [([], [], private), (["--no-keep-names"], ["--config", own], private), (["--keep-names"], [], kept)]
    ):
        capsys.readouterr()
        assert main(["inspect", str(picture), "--json", *said]) == 0
        assert [row["name"] for row in json.loads(capsys.readouterr().out)["inputs"]] == names
        out = tmp_path / str(number)
        assert predict(picture, *said, *changed, out=out) == 0
        assert [row["name"] for row in rows_of(out)] == names
        told = [file for file in out.rglob("*") if file.is_file() and b"rosamund" in file.read_bytes()]
        assert bool(told) == (names == kept)
        assert not any(b"QUIMBY" in file.read_bytes() for file in out.rglob("*") if file.is_file())
