# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.writers import InputRecord, InputState, OutputFolder
from monai_anomalyclip.writers.finished import Slices
from monai_anomalyclip.writers.record import Model
from monai_anomalyclip.writers.tables import made_with

TABLES = ("results.json", "scores.csv", "report.html")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One picture is finished, another failed."""
    folder = OutputFolder(tmp_path / "out")
    made = made_with(Model(backbone="b", backbone_sha256="0" * 64), {"threshold": 0.5}, "cpu")
    (folder.stage("a") / "a_overlay.jpg").write_bytes(b"x")
    record = InputRecord(
        name="a", source="frame", kind="frame", frames=1, scores=[0.625], anomaly_score=0.625, map_max=0.75,
        threshold=0.5, anomalous_fraction=0.25, outputs=["a_overlay.jpg"],
    )  # fmt: skip
    slices = Slices(map_max=(0.75,), area_fraction=(0.25,))
    folder.publish(
        InputState(name="a", state="finished", made_with=made, slices=slices, record=record), ["a_overlay.jpg"]
    )
    folder.unstage("a")
    failed = InputRecord(name="b", source="nifti", status="failed", reason="The file is cut.")
    folder.put(InputState(name="b", state="failed", made_with=made, record=failed))
    return folder.path


def test_tables_and_report_are_made_from_the_records(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "0.625" in shown
    assert "failed: The file is cut." in shown
    before = {name: (results / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (results / name).unlink()
    assert main(["report", str(results)]) == 0
    again = {name: (results / name).read_bytes() for name in TABLES}
    assert again["scores.csv"] == before["scores.csv"]
    assert set(again) == set(before)


def test_a_record_that_cannot_be_read_is_named_and_is_status_3(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "c_record.json").write_text("{")
    assert main(["report", str(results)]) == 3
    assert "The record of 'c' in the output folder cannot be read" in capsys.readouterr().out


def test_a_folder_without_results_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert main(["report", str(folder)]) == 1
        assert "There are no results in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_needs_neither_torch_nor_monai(results: Path) -> None:
    code = (
        "import sys; from monai_anomalyclip.cli import main; status = main(['report', sys.argv[1]]);"
        "print(status, sorted({'torch', 'monai', 'ignite', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_pages_in_3d_without_niivue(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("monai_anomalyclip.writers.viewer_3d.find_spec", lambda _: None)
    assert main(["report", str(results), "--viewer-3d"]) == 1
    assert "pip install ipyniivue" in capsys.readouterr().err


def test_pages_in_3d_are_of_volumes(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("ipyniivue") is None:
        pytest.skip("ipyniivue is not installed (the extra viewer3d)")
    assert main(["report", str(results), "--viewer-3d", "3"]) == 0
    assert "In 3-D: no volume here" in capsys.readouterr().out


def test_pages_in_3d_are_named(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that are written, by rank; what writes them is put aside, since it needs NiiVue."""
    monkeypatch.setattr(
        "monai_anomalyclip.writers.viewer_3d.write_3d_pages",
        lambda folder, names, count: [folder / f"{name}_3d.html" for name in names[:count]],
    )
    assert main(["report", str(results), "--viewer-3d", "3"]) == 0
    assert f"In 3-D: {results}/a_3d.html\n" in capsys.readouterr().out
