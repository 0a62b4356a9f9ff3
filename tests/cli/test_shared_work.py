# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import csv
import errno
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.shared_work import _KINDS
from monai_anomalyclip.data.sources import FrameSource
from monai_anomalyclip.data.work_list import WorkUnit, read_work_list
from monai_anomalyclip.scale import cluster
from monai_anomalyclip.scale.cluster import ClusterDone, score_unit
from monai_anomalyclip.scale.templates import KINDS
from monai_anomalyclip.scale.warm_run import RunOptions


def test_what_is_found_and_left_out(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "1.2.840" / "cut.dcm").write_bytes(next((study / "1.2.840").glob("*.dcm")).read_bytes()[:300])
    path = tmp_path / "work.jsonl"
    assert main(["list", str(study), "-o", str(path), "--exclude", "us"]) == 3  # a file is damaged
    shown = capsys.readouterr().out
    assert "left out: 1 x localizer series" in shown
    assert "left out: 1 x damaged header" in shown
    assert "QUIMBY" not in shown
    header, units = read_work_list(path)
    names = [name for unit in units for name in unit.names.values()]
    assert (header.inputs, len(names)) == (len(set(names)), len(names))
    assert header.left_out["excluded"] == 1
    assert main(["list", str(tmp_path / "absent"), "-o", str(path)]) == 1


PARTS = 3


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> Path:
    folder = tmp_path_factory.mktemp("work") / "studies"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    phantoms.make_series(folder / "ct", count=3, size=(32, 40))
    (folder / "bad.png").write_text("no picture")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def contents(folder: Path) -> dict[str, bytes]:
    """What does not tell when or how fast it was made."""
    kinds = (".png", ".jpg", ".gz")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in kinds}


def test_parts_together_are_one_run(
    studies: Path, options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The scan is done once; parts write no tables; merge tells what is missing, then what failed."""
    work, out, whole = tmp_path / "work.jsonl", tmp_path / "out", tmp_path / "whole"
    assert main(["list", str(studies), "-o", str(work)]) == 0
    assert "8 inputs in 8 files and series" in capsys.readouterr().out
    common = ["predict", "--list", str(work), "-o", str(out), *options]
    status = {main([*common, "--part", f"{part}/{PARTS}"]) for part in range(1, PARTS)}
    shown = capsys.readouterr().out
    assert "Tables: monai-anomalyclip merge" in shown
    assert not (out / "results.json").exists()
    assert main(["merge", str(out), "--list", str(work)]) == 1  # something is missing
    shown = capsys.readouterr().out
    done = len(rows(out / "inputs.csv"))
    assert f"{8 - done} are missing" in shown
    missing = [row["name"] for row in rows(out / "missing.csv") if row["status"] == "missing"]
    assert len(missing) == 8 - done > 0
    status.add(main([*common, "--part", f"{PARTS}/{PARTS}"]))
    assert status <= {0, 3}
    assert 3 in status  # the part with the bad picture
    capsys.readouterr()
    assert main(["merge", str(out), "--list", str(work), "--parquet"]) == 3
    assert "7 of 8 inputs are done, 1 failed, 0 are missing." in capsys.readouterr().out
    assert [row["status"] for row in rows(out / "missing.csv")] == ["failed"]
    assert main(["predict", str(studies), "-o", str(whole), *options]) == 3
    assert contents(out) == contents(whole)
    assert (out / "inputs.csv").read_bytes() == (whole / "inputs.csv").read_bytes()
    assert (out / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    documents = [json.loads((folder / "results.json").read_text()) for folder in (out, whole)]
    assert documents[0]["summary"] == documents[1]["summary"]
    for name in ("inputs", "scores"):
        table = pyarrow.parquet.read_table(out / f"{name}.parquet")
        written = rows(out / f"{name}.csv")
        assert table.num_rows == len(written)
        assert table.column("name").to_pylist() == [row["name"] for row in written]
        scores = [float(row["anomaly_score"]) if row["anomaly_score"] else None for row in written]
        assert table.column("anomaly_score").to_pylist() == scores
    assert main([*common, "--part", f"1/{PARTS}"]) in (0, 3)  # once more changes nothing
    assert contents(out) == contents(whole)


def test_a_list_is_kept_apart_from_results(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "NOTICE.txt").write_text("x")
    (results / "a_record.json").write_text(json.dumps({"schema_version": "2.0"}))
    from monai_anomalyclip import RESEARCH_USE_ONLY

    (results / "results.json").write_text(RESEARCH_USE_ONLY)
    status = main(["list", str(studies), "-o", str(results / "work.jsonl")])
    assert (status, (results / "work.jsonl").exists()) == (1, False)
    assert "choose another place" in capsys.readouterr().err


def test_the_command_writes_every_kind_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert KINDS == _KINDS
    for kind in KINDS:
        words = ["template", kind, "-o", str(tmp_path / kind), "--list", "/data/w.jsonl", "--results", "/data/out"]
        assert main([*words, "--parts", "4"]) == 0
        assert "/data/w.jsonl" in (tmp_path / kind).read_text()
        assert main(words) == 1  # it exists
        assert main([*words, "--force"]) == 0
    assert main(["template", "slurm", "-o", str(tmp_path / "x"), "--list", "a'b", "--results", "out"]) == 1
    assert "cannot stand in a template" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@contextlib.contextmanager
def no_cluster(where: str) -> Iterator[str]:
    yield where


@pytest.mark.parametrize("listed", [False, True])
def test_on_a_cluster(
    listed: bool,
    studies: Path,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All but Dask: its part, to hand a unit to a worker and bring back what it did, is done here."""

    def score(client: str, units: Iterable[WorkUnit], output: Path, options: RunOptions, tell: Any) -> ClusterDone:
        assert client == "tcp://head:8786"
        assert output == tmp_path / "out"
        done = ClusterDone()
        for unit in units:
            done.add(score_unit(options, str(output), unit.to_json(), "token"))
            tell(done)
        return done

    def ailing(*_: object) -> ClusterDone:
        return ClusterDone(written=1, failed=2, passing=2)

    monkeypatch.setattr(cluster, "connected", no_cluster)
    monkeypatch.setattr(cluster, "predict_on_cluster", score)
    monkeypatch.chdir(tmp_path)
    for path in studies.iterdir():
        if path.suffix == ".png":
            shutil.copy(path, tmp_path)
    inputs = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    if listed:
        assert main(["list", *inputs, "-o", "work.jsonl"]) == 0
        inputs = ["--list", "work.jsonl"]
    words = ["predict", *inputs, "-o", "out", "--cluster", "tcp://head:8786", *options]
    assert main(words) == 3
    assert "failed: " in capsys.readouterr().out
    assert sorted(row["status"] for row in rows(tmp_path / "out" / "inputs.csv")) == ["failed"] + ["ok"] * 6
    monkeypatch.setattr(cluster, "predict_on_cluster", ailing)
    assert main(words) == 1
    assert "2 inputs failed for a reason that may pass: run the same command again." in capsys.readouterr().out


def test_failures_that_may_pass_and_those_of_a_part_of_torchrun(
    studies: Path,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["predict", str(studies / "bad.png"), "-o", str(tmp_path / "out"), *options, "--workers", "0"]
    part = [*words, "--part", "1/1"]
    assert main(part) == 3
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    capsys.readouterr()
    assert main(part) == 0
    assert "the status is 0 all the same, for torchrun would end the other parts" in capsys.readouterr().out
    assert main(words) == 3  # not of a part

    def ail(*_: object) -> None:
        raise OSError(errno.EIO, "the drive")

    monkeypatch.setattr(FrameSource, "load", ail)
    words[1] = str(studies / "0.png")
    assert main(words) == 1
    assert "1 inputs failed for a reason that may pass: run the same command again." in capsys.readouterr().out


def test_a_list_with_links_and_a_record_that_is_damaged(
    studies: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, links, out = tmp_path / "work.jsonl", tmp_path / "links.csv", tmp_path / "out"
    pictures = [str(studies / "0.png"), str(studies / "1.png")]
    assert main(["list", *pictures, "-o", str(work), "--links", str(links)]) == 0
    assert [path for row in rows(links) for path in row.values() if path in pictures] == pictures
    assert main(["predict", "--list", str(work), "-o", str(out), *options]) == 0
    record = next(out.glob("*_record.json"))
    record.write_text("{")
    capsys.readouterr()
    assert main(["merge", str(out)]) == 3
    assert "cannot be read" in capsys.readouterr().out
