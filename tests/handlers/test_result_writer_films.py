# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The result writer given films, part by part."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pydicom
import pytest
import torch
from pydicom.uid import Comprehensive3DSRStorage
from result_runs import (
    OWN,
    catalogue_of,
    files_of,
    rows_of,
    run,
    scored,
    scored_items,
    writer_of,
)

from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.writers import RunDocument


@pytest.fixture
def film(phantoms: ModuleType, tmp_path: Path) -> Path:
    pytest.importorskip("av", reason="PyAV is not installed")
    phantoms.make_cine(tmp_path / "us", count=150, size=(16, 20))
    return tmp_path / "us"


def test_parts_of_a_film_become_one_result(film: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(film), tmp_path / "out"
    items = scored_items(catalogue)
    assert [item["part"] for item in items] == [0, 1, 2]
    (name,) = catalogue.sources
    writer = writer_of(out, catalogue, threshold=0.9)
    run(writer, items)
    assert files_of(out) == sorted(
        [*OWN, f"{name}_frames.csv", f"{name}_overlay.mp4", f"{name}_sr.dcm", f"{name}_worst.jpg"]
    )
    report = pydicom.dcmread(out / f"{name}_sr.dcm")
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.StudyInstanceUID == catalogue.sources[name].series.header.StudyInstanceUID
    (record,) = RunDocument.read(out / "results.json").inputs
    assert (record.kind, record.frames, len(record.times)) == ("cine", 150, 150)
    scores = torch.cat([item["anomaly_score"] for item in items]).tolist()
    assert record.scores == pytest.approx(scores, abs=1e-6)
    heat = torch.cat([item["anomaly_map"][0] for item in items], dim=2)
    assert record.map_max == pytest.approx(float(heat.max()))
    assert record.anomalous_fraction == pytest.approx(float((heat >= 0.9).float().mean()), rel=1e-5)
    assert record.timings is not None
    assert record.timings.score_s == pytest.approx(1.5)
    assert record.times[:3] == pytest.approx([0, 0.04, 0.08])
    assert len(rows_of(out)) == 151
    assert writer_of(out, catalogue, threshold=0.9).pending(catalogue.items()) == []


@pytest.mark.parametrize("broken", [0, 2])
def test_a_part_that_fails_ends_the_film_and_leaves_no_file(
    film: Path, inputs: Path, tmp_path: Path, broken: int
) -> None:
    catalogue, out = InputCatalogue([film, inputs], keep_names=True), tmp_path / "out"
    items = scored_items(catalogue)
    (name,) = (name for name, source in catalogue.sources.items() if source.kind == "cine")
    films = [item for item in items if item["name"] == name]
    films[broken]["anomaly_map"] = films[broken]["anomaly_map"] * 2  # out of range
    writer = writer_of(out, catalogue)
    engine = run(writer, [*films[: broken + 1], *(item for item in items if item["name"] != name)])
    assert list(writer.failed) == list(engine.failures) == [name]  # type: ignore[attr-defined]
    assert sorted(writer.written) == ["sub/doe", "sub/john"]
    assert not [file for file in files_of(out) if file.startswith((name, "."))]
    assert [row["status"] for row in rows_of(out) if row["name"] == name] == ["failed"]
    # The next run begins the film anew.
    again = writer_of(out, catalogue)
    pending = again.pending(catalogue.items())
    assert [item["name"] for item in pending] == [name] * 3
    run(again, [scored(item) for item in pending])
    assert again.written == [name]


def test_an_unreadable_part_ends_the_film(film: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(film), tmp_path / "out"
    first, *_ = scored_items(catalogue)
    errors = [{"name": first["name"], "error": "breaks at frame 70"}, {"name": first["name"], "error": "more"}]
    writer = writer_of(out, catalogue)
    run(writer, [first, *errors])
    assert writer.failed == {first["name"]: "breaks at frame 70"}
    assert files_of(out) == OWN


def test_a_film_that_is_cut_short_leaves_no_file(film: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(film), tmp_path / "out"
    items = scored_items(catalogue)
    run(writer_of(out, catalogue), items[:1])  # the run ends after the first of three parts
    assert files_of(out) == OWN
    assert rows_of(out) == []
    again = writer_of(out, catalogue)
    run(again, [items[0], items[2]])
    assert list(again.failed) == [items[0]["name"]]
    assert files_of(out) == OWN


def test_a_film_whose_last_part_is_short_keeps_what_was_scored(film: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(film), tmp_path / "out"
    items = scored_items(catalogue)
    last = items[-1]
    last["image"] = last["image"][..., :-1]
    last["anomaly_map"], last["anomaly_score"] = last["anomaly_map"][..., :-1], last["anomaly_score"][:-1]
    writer = writer_of(out, catalogue, outputs="default,sc")
    run(writer, items)
    assert not writer.failed
    (record,) = RunDocument.read(out / "results.json").inputs
    assert (record.frames, len(record.times), len(record.scores)) == (149, 149, 149)
    assert list(record.warnings[-4:]) == [
        "The film ends after 149 of the 150 frames that it claims.",
        "No DICOM structured report: it could not refer to the frames of a film that ends early.",
        "No DICOM segmentation of a film: its overlay is an MP4, its scores are a table.",
        "No DICOM secondary capture of a film: its overlay is an MP4, its scores are a table.",
    ]
    assert {output.replace(record.name, "") for output in record.outputs} == {
        "_overlay.mp4",
        "_frames.csv",
        "_worst.jpg",
    }
    assert len(rows_of(out)) == 150


def test_a_gap_within_a_film_fails(film: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(film)
    items = scored_items(catalogue)
    writer = writer_of(tmp_path / "out", catalogue)
    run(writer, [items[0], items[2]])
    (reason,) = writer.failed.values()
    assert reason == "ValueError: Part 3 of the film begins at frame 128, but 64 were given."
