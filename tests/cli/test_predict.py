# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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

import nibabel as nib
import numpy as np
import pydicom
import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli import main
from monai_anomalyclip.data import InputCatalogue
from tests.cli.predict_results import results_of, rows_of, times_of

Predict = Callable[..., int]


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
    for text in (shown.out, (out / "report.html").read_text()):
        assert text.count("scores on real scans are meaningless") == 1  # it is the demonstration's model
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
