# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest
from PIL import ImageFile

from monai_anomalyclip import networks
from monai_anomalyclip.cli import main


@pytest.fixture(autouse=True)
def no_pixels_and_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("pixels were read or a network was made")

    for place in ("sources.load_series", "frames.load_frame", "nifti.load_volume", "nifti._read_voxels"):
        monkeypatch.setattr(f"monai_anomalyclip.data.{place}", forbidden)
    monkeypatch.setattr("monai_anomalyclip.data.dicom.reader.decode_frames", forbidden)
    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)
    monkeypatch.setattr(networks.AnomalyCLIP, "__init__", forbidden)


def inspect(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["inspect", *map(str, arguments)])
    return status, capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    status, shown = inspect(capsys, "--json", *arguments)
    return status, json.loads(shown)


def uid_of(study: Path, pattern: str) -> str:
    return str(pydicom.dcmread(next((study / "1.2.840").glob(pattern)), stop_before_pixels=True).SeriesInstanceUID)


def test_table_lists_inputs_and_what_is_left_out(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "notes").write_text("text")
    status, shown = inspect(capsys, study)
    assert status == 3  # because of the picture that cannot be read
    head, _, *lines = shown.splitlines()
    assert head.split() == ["input", "kind", "frames", "size", "geometry", "preset"]
    rows = [re.split(r"\s{2,}", line) for line in lines[:7]]
    series = [row for row in rows if row[0].startswith("ct_")]
    assert [row[2:4] for row in series] == [["3", "32 x 40"]] * 2
    assert {row[4] for row in series} == {"regular", "gantry tilt"}
    assert all(row[5].startswith("ct-") for row in series)
    found = {re.sub("_[0-9a-f]{16}$", "", row[0]): row[1:] for row in rows}
    assert found["us"] == ["US cine (colour)", "3", "32 x 40", "no position"]
    assert found["-"] == ["CT volume", "1", "32 x 40", "left out: localizer"]
    assert found["volume"][1] == "5 x 6 x 7"
    assert re.search(r"^frame_[0-9a-f]{16}: cannot be read: ", shown, re.MULTILINE)
    assert "left out: 1 x localizer series" in lines
    assert "left out: 1 x not DICOM" in lines
    assert "--show-uids" in lines[-1]


def test_names_are_those_that_predict_gives(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from monai_anomalyclip.data import InputCatalogue

    for options, keep_names in (((), False), (("--keep-names",), True)):
        names = [fact["name"] for fact in listed(capsys, study, *options)[1]["inputs"]]
        assert names == [*InputCatalogue(study, keep_names=keep_names).sources, "-"]


def test_nothing_tells_whom_it_shows_unless_asked_for(
    study: Path, capsys: pytest.CaptureFixture[str], phantoms: ModuleType
) -> None:
    secrets = ("QUIMBY", "ROSAMUND", "1.2.840", "1.2.826", phantoms.CANARY)
    for options in ((), ("--json",)):
        shown = inspect(capsys, study, *options)[1]
        assert not [secret for secret in secrets if secret.lower() in shown.lower()]
        uids, paths = (inspect(capsys, study, *options, option)[1] for option in ("--show-uids", "--show-paths"))
        for pattern in ("a*.dcm", "tilt*.dcm", "loc*.dcm"):
            assert uid_of(study, pattern) in uids
            assert uid_of(study, pattern) not in paths
        assert str(study / "rosamund.png") in paths
        assert str(study) not in uids
        assert phantoms.CANARY not in uids


def test_paths_come_with_the_series_descriptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], phantoms: ModuleType
) -> None:
    def describe(data: pydicom.Dataset, _: int) -> None:
        data.SeriesDescription = "T2 \x1b[31m"  # no terminal takes it for a command

    phantoms.make_series(tmp_path / "ct", count=2, size=(32, 40), edit=describe)
    shown = inspect(capsys, tmp_path, "--show-paths")[1]
    assert shown.splitlines()[0].split()[-2:] == ["description", "path"]
    assert "  T2 [31m  " in shown
    assert "T2" not in inspect(capsys, tmp_path)[1]
    (fact,) = listed(capsys, tmp_path, "--show-paths")[1]["inputs"]
    assert fact["description"] == "T2 [31m"


def test_a_folder_without_inputs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"Nothing to read in '{tmp_path}': no DICOM image, NIfTI volume, picture or video" in said


def test_json(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, content = listed(capsys, study, "--show-uids")
    assert status == 3
    assert content["left_out"] == {"localizer series": 1}
    facts = content["inputs"]
    assert len(facts) == 7
    assert [bool(fact["problem"]) for fact in facts].count(True) == 1
    (us,) = (fact for fact in facts if fact["name"].startswith("us_"))
    assert (us["kind"], us["frames"], us["size"], us["geometry"]) == ("US cine (colour)", 3, "32 x 40", "no position")
    assert us["series"].startswith("1.2.826")
    assert all("path" not in fact for fact in facts)


def test_all_well_is_status_0(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "quimby.png").unlink()
    assert inspect(capsys, study)[0] == 0
    assert listed(capsys, study)[0] == 0


def test_options_count(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, content = listed(capsys, study, "--series", uid_of(study, "loc*.dcm"), "--preset", "ct-bone")
    assert status == 0
    (fact,) = content["inputs"]
    assert (fact["kind"], fact["frames"], fact["preset"]) == ("CT volume", 1, "ct-bone")
    assert content["left_out"] == {}


def test_nothing_found_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("text")
    assert inspect(capsys, tmp_path) == (1, "left out: 1 x not DICOM\n")
    assert listed(capsys, tmp_path) == (1, {"inputs": [], "left_out": {"not DICOM": 1}})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent"], "does not exist"),
        ([".", "--series", "1.2.3"], "Series 1.2.3 is not among"),
        ([".", "--preset", "ct-brian"], "There is no intensity preset 'ct-brian'"),
        ([".", "--include", "captures"], "No series is left out as 'captures': choose of localizer, mosaic"),
        ([".", "--stride", "0"], "stride must lie in 1 to 100,000, got 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    study: Path,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(study)
    assert main(["inspect", *arguments]) == 1
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]


def test_real_study(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_data / "dicom" / "dicom2nifti" / "generic" / "anatomical" / "001"
    status, content = listed(capsys, folder)
    (fact,) = content["inputs"]
    assert (status, fact["geometry"], fact["frames"]) == (0, "regular", len(list(folder.iterdir())))


def test_files_that_are_left_out_are_named_with_paths_and_json_alone(
    phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = phantoms.make_series(tmp_path, count=5)
    paths[1].write_bytes(paths[1].read_bytes()[:900])
    paths[2].write_bytes(paths[2].read_bytes()[:-3])
    copy = tmp_path / "zz copy.dcm"
    copy.write_bytes(paths[3].read_bytes())
    (tmp_path / "scribbles").write_text("text")
    status, content = listed(capsys, tmp_path, "--show-paths")
    assert status == 3
    found = {file["path"]: (file["reason"], file["damaged"]) for file in content["files_left_out"]}
    assert found == {
        str(paths[1]): ("damaged header", True),
        str(paths[2]): ("damaged pixels", True),
        str(copy): ("duplicate file", False),
        str(tmp_path / "scribbles"): ("not DICOM", False),
    }
    (fact,) = content["inputs"]
    assert any("Damaged files of this series" in note for note in fact["notes"])
    for options in (("--json",), ("--show-paths",), ()):
        shown = inspect(capsys, tmp_path, *options)[1]
        assert not [path for path in found if Path(path).name in shown], options


@pytest.mark.parametrize("length", [0, 100, 131, 140, 700, 900, 1000, 1200])
def test_a_slice_cut_off_in_its_header_is_damaged(
    phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    paths = phantoms.make_series(tmp_path, count=8)
    paths[7].write_bytes(paths[7].read_bytes()[:length])
    status, content = listed(capsys, tmp_path)
    assert (status, content["left_out"]) == (3, {"damaged header": 1})
    (fact,) = content["inputs"]
    assert (fact["frames"], fact["geometry"]) == (7, "regular")
    assert any("amaged files" in note for note in fact["notes"])


def test_what_would_be_left_out_can_be_included(
    phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        capture = {"modality": "OT", "photometric": "RGB", "positioned": False}
        phantoms.make_series(tmp_path, count=2, seed=f"sc{number}", **capture)
    phantoms.make_series(tmp_path, count=1, seed="loc", localizer=True)
    shown = inspect(capsys, tmp_path)[1]
    assert "left out: 6 x secondary capture series" in shown
    assert "--include REASON" in shown
    status, content = listed(capsys, tmp_path, "--include", "secondary-capture")
    assert (status, content["left_out"]) == (0, {"localizer series": 1})
    kinds = [fact["kind"] for fact in content["inputs"] if fact["name"] != "-"]
    assert kinds == ["OT frame (colour)"] * 6
    both = ("--include", "secondary-capture", "--include", "localizer")
    assert listed(capsys, tmp_path, *both)[1]["left_out"] == {}


def test_links_join_names_with_paths_and_uids(study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "private" / "links.csv"
    table.parent.mkdir()
    _, found = listed(capsys, study, "--links", table, "--exclude", "tilt*")
    with table.open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert list(rows) == [fact["name"] for fact in found["inputs"] if fact["name"] != "-"]
    series = [row["series_instance_uid"] for name, row in rows.items() if name.startswith("ct_")]
    assert series == [uid_of(study, "a*.dcm")]
    assert found["left_out"]["excluded"] == 3
