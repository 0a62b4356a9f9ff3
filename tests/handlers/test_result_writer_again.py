# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The result writer in a folder that an earlier run has written to."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from result_runs import (
    OWN,
    Network,
    catalogue_of,
    files_of,
    item_of,
    rows_of,
    run,
    scored,
    scored_items,
    writer_of,
)

import monai_anomalyclip
from monai_anomalyclip.data import FaultTolerantDataset, LoadInputd
from monai_anomalyclip.writers import RunDocument


def test_a_second_run_continues(inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    first = writer_of(out, catalogue)
    first.write(item_of(catalogue, "sub/doe"))
    first.record_failure("sub/john", "cut")
    assert not first.states.already_done("sub/john")

    second = writer_of(out, catalogue_of(inputs))
    with caplog.at_level(logging.INFO):
        assert [item["name"] for item in second.pending(catalogue.items())] == ["sub/john"]
    assert "1 of 2 inputs are finished already and left out." in caplog.text
    second.write(item_of(catalogue, "sub/john"))
    second.finish()
    assert [row["status"] for row in rows_of(out) if row["name"] == "sub/john"] == ["ok"] * 8
    assert RunDocument.read(out / "results.json").summary.ok == 2
    assert (out / "report.html").read_text().count("data:image/jpeg;base64,") == 4 + 8  # also those of the first run
    third = writer_of(out, catalogue)
    assert third.pending(catalogue.items()) == []
    assert len(writer_of(out, catalogue, overwrite=True).pending(catalogue.items())) == 2


def test_frames_of_finished_films_are_not_counted(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting them may mean decoding them all."""
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    assert [item["name"] for item in writer_of(out, catalogue).pending()] == ["sub/doe", "sub/john"]
    run(writer_of(out, catalogue), [item_of(catalogue, "sub/doe")])
    counted = []
    for name, source in catalogue.sources.items():
        parts = source.parts
        monkeypatch.setattr(source, "parts", lambda name=name, parts=parts: counted.append(name) or parts())
    assert [item["name"] for item in writer_of(out, catalogue).pending()] == ["sub/john"]
    assert counted == ["sub/john"]


def test_several_runs_write_into_one_folder(inputs: Path, tmp_path: Path) -> None:
    """At the same time, each its own inputs; the tables hold all that is finished when the last of them ends."""
    out = tmp_path / "out"
    catalogues = [catalogue_of(inputs / "sub" / name) for name in ("doe.png", "john.nii.gz")]
    writers = [writer_of(out, catalogue) for catalogue in catalogues]
    items = [scored(writer.pending()[0]) for writer in writers]
    for writer, item in zip(writers, items, strict=True):
        writer.write(item)
    for writer, name in zip(writers, ("doe", "john"), strict=True):
        writer.finish()
        assert writer.written == [name]
        assert {row["name"]: row["status"] for row in rows_of(out)} == {"doe": "ok", "john": "ok"}


def test_an_output_that_was_deleted_is_made_again(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    run(writer_of(out, catalogue), scored_items(catalogue))
    for name, file in (("sub/doe", "sub/doe_overlay.jpg"), ("sub/john", "sub/john_map.nii.gz")):
        (out / file).unlink()
        writer = writer_of(out, catalogue)
        assert [item["name"] for item in writer.pending(catalogue.items())] == [name]
        writer.write(item_of(catalogue, name))
        assert (out / file).is_file()
        assert writer.states.already_done(name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"threshold": 0.4}, "threshold"),
        ({"outputs": "png"}, "map_precision, outputs"),
        ({"slice_axis": 2}, "slice_axis"),
        ({"sheared_nifti": True}, "sheared_nifti"),
        ({"settings": {"sigma": 1}}, "sigma"),
        ({"network": Network(depth=4)}, "model"),
        ({"segment_type": "10200004^SCT^Liver", "threshold": 0.4}, "segment_type, threshold"),
    ],
)
def test_results_of_other_settings_are_not_taken_for_these(
    inputs: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    writer_of(out, catalogue).write(item_of(catalogue, "sub/doe"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changed = writer_of(out, catalogue, **change)
    message = f"holds results of 'sub/doe' that differ in {named}: choose another folder, or set overwrite"
    with pytest.raises(FileExistsError, match=message):
        changed.pending(catalogue.items())
    with pytest.raises(FileExistsError, match=message):
        changed.write(item_of(catalogue, "sub/doe"))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    overwriting = writer_of(out, catalogue, overwrite=True, **change)
    overwriting.write(item_of(catalogue, "sub/doe"))
    assert writer_of(out, catalogue, **change).states.already_done("sub/doe")


def test_reading_options_version_and_files_count_too(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    run(writer_of(out, catalogue), scored_items(catalogue))
    other = catalogue_of(inputs, options={"preset": "percentile", "nifti_form": "sform"})
    with pytest.raises(FileExistsError, match="differ in nifti_form, preset:"):
        writer_of(out, other).pending(other.items())
    with monkeypatch.context() as patch:
        patch.setattr("monai_anomalyclip.writers.tables.__version__", "9")
        with pytest.raises(FileExistsError, match="differ in version:"):
            writer_of(out, catalogue).pending(catalogue.items())
    assert monai_anomalyclip.__version__ != "9"
    assert writer_of(out, catalogue).pending(catalogue.items()) == []

    affine = np.diag([1.0, 1, 4, 1])
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), affine), inputs / "sub" / "john.nii.gz")
    changed = catalogue_of(inputs)
    with pytest.raises(FileExistsError, match="results of 'sub/john' that differ in the input's files:"):
        writer_of(out, changed).states.already_done("sub/john")
    with pytest.raises(FileExistsError, match="differ in threshold, the input's files:"):
        writer_of(out, changed, threshold=0.4).states.already_done("sub/john")


def test_another_patients_file_of_the_same_name_is_not_taken_for_finished(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        (tmp_path / patient / "t1").mkdir(parents=True)
        data = np.zeros((30, 30, 30), np.float32)
        data[10:20, 10:20, 10:20] = ord(patient)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / patient / "t1" / "t1.nii")
    first, second = (catalogue_of(tmp_path / patient / "t1", keep_names=False) for patient in ("a", "b"))
    assert list(first.sources) == list(second.sources)
    writer_of(tmp_path / "out", first).write(scored(first.items()[0]))
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")}
    (name,) = first.sources
    for _ in range(2):
        writer = writer_of(tmp_path / "out", second)
        items = list(FaultTolerantDataset(writer.pending(second.items()), LoadInputd()))
        (reason,) = writer.failed.values()
        assert reason.startswith(f"The output folder holds results of '{name}' that differ in the input's files: ")
        assert items == [
            {"name": name, "part": 0, "error": reason, "may_pass": False}
        ]  # so that the run as a whole fails
        run(writer, items)
        assert [row["status"] for row in rows_of(tmp_path / "out")] == ["failed"]
        assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")} == before
    # Those of the first patient are still known.
    assert writer_of(tmp_path / "out", first).states.already_done(name)
    again = writer_of(tmp_path / "out", first)
    assert again.pending(first.items()) == []
    again.finish()
    assert {row["status"] for row in rows_of(tmp_path / "out")} == {"ok"}
    forced = writer_of(tmp_path / "out", second, overwrite=True)
    run(forced, [scored(item) for item in forced.pending(second.items())])
    assert forced.written == [name]


def test_a_changed_input_does_not_keep_the_others(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    writer_of(out, catalogue).write(item_of(catalogue, "sub/doe"))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(inputs / "sub" / "doe.png")
    writer = writer_of(out, catalogue)
    good, bad = FaultTolerantDataset(writer.pending(catalogue.items()), LoadInputd())
    assert (good["name"], bad["name"]) == ("sub/john", "sub/doe")
    engine = run(writer, [scored(good), bad])
    assert (writer.written, list(writer.failed)) == (["sub/john"], ["sub/doe"])
    assert engine.failures == {}  # type: ignore[attr-defined]  # the evaluator's own business
    assert {row["name"]: row["status"] for row in rows_of(out)} == {"sub/doe": "failed", "sub/john": "ok"}


def test_settings_are_compared_before_missing_files(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    writer_of(out, catalogue).write(item_of(catalogue, "sub/doe"))
    (out / "sub" / "doe_overlay.jpg").rename(tmp_path / "moved.png")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changed = writer_of(out, catalogue, threshold=0.4)
    for attempt in (lambda: changed.pending(catalogue.items()), lambda: changed.write(item_of(catalogue, "sub/doe"))):
        with pytest.raises(FileExistsError, match="differ in threshold:"):
            attempt()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for path in (out / "sub").iterdir():
        path.unlink()
    changed.write(item_of(catalogue, "sub/doe"))  # nothing is left to protect


def test_another_input_is_not_added_with_another_model_or_settings(inputs: Path, tmp_path: Path) -> None:
    first, second = (catalogue_of(inputs / "sub" / name) for name in ("doe.png", "john.nii.gz"))
    out = tmp_path / "out"
    run(writer_of(out, first), scored_items(first))
    for overwrite in (False, True):
        for change, named in (({"network": Network(depth=4)}, "model"), ({"settings": {"sigma": 1}}, "sigma")):
            writer = writer_of(out, second, overwrite=overwrite, **change)
            with pytest.raises(
                FileExistsError, match=f"of 'doe', which is not among these inputs, that differ in {named}:"
            ):
                writer.pending(second.items())
    assert len(writer_of(out, second).pending(second.items())) == 1
    both = catalogue_of(inputs / "sub")
    writer = writer_of(out, both, overwrite=True, settings={"sigma": 1})
    assert len(writer.pending(both.items())) == 2
    writer.finish()  # before anything is redone
    assert [row["status"] for row in rows_of(out)] == ["unfinished"]
    assert RunDocument.read(out / "results.json").inputs == ()


def test_what_is_not_written_again_is_removed(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "ct", count=2, size=(32, 40))
    catalogue, out = catalogue_of(tmp_path / "ct"), tmp_path / "out"
    (name,) = catalogue.sources
    run(writer_of(out, catalogue, outputs="seg,nifti"), scored_items(catalogue))
    drawn = out / f"{name}_seg_by_hand.dcm"
    drawn.touch()
    options: dict[str, Any] = {"outputs": "nifti", "threshold": 0.9}
    forced = writer_of(out, catalogue, overwrite=True, **options)
    forced.pending(catalogue.items())  # and is killed
    assert (out / f"{name}_seg.dcm").exists()
    forced = writer_of(out, catalogue, overwrite=True, **options)
    forced.record_failure(name, "cut")
    assert (out / f"{name}_seg.dcm").exists()
    run(writer_of(out, catalogue, **options), scored_items(catalogue))
    files = [
        f"{name}{end}" for end in ("_map.nii.gz", "_mask.nii.gz", "_overlay.jpg", "_seg_by_hand.dcm", "_worst.jpg")
    ]
    assert files_of(out) == sorted([*OWN, *files])


def test_an_interrupted_input_leaves_nothing_and_other_files_are_never_replaced(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    writer = writer_of(out, catalogue)

    def killed(staging: Path, *_: object, **__: object) -> None:
        (staging / "doe_heat.png").write_bytes(b"from the run that was killed")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("monai_anomalyclip.handlers.result_writer.write_results", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.write(item_of(catalogue, "sub/doe"))
    writer.finish()
    assert rows_of(out) == []
    assert files_of(out) == OWN
    again = writer_of(out, catalogue)
    assert len(again.pending(catalogue.items())) == 2
    again.write(item_of(catalogue, "sub/doe"))
    assert again.states.already_done("sub/doe")
    assert Image.open(out / "sub" / "doe_heat.png").size == (30, 20)

    drawn = out / "sub" / "john_mask.nii.gz"
    drawn.write_bytes(b"drawn by hand")
    for attempt in range(2):  # the refused attempt must not count as an interrupted one
        refused = writer_of(out, catalogue)
        engine = run(refused, [item_of(catalogue, "sub/john")])
        assert "john_mask.nii.gz exist already" in refused.failed["sub/john"]
        assert engine.failures == refused.failed  # type: ignore[attr-defined]
        assert drawn.read_bytes() == b"drawn by hand", attempt
        assert [row["status"] for row in rows_of(out)] == ["ok", "failed"]
        assert [record.status for record in RunDocument.read(out / "results.json").inputs] == ["ok", "failed"]
    writer_of(out, catalogue, overwrite=True).write(item_of(catalogue, "sub/john"))
    assert drawn.read_bytes() != b"drawn by hand"


def test_finished_results_are_not_replaced_unless_told(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    writer = writer_of(out, catalogue)
    writer.write(item_of(catalogue, "sub/doe"))
    before = (out / "sub" / "doe_heat.png").read_bytes()
    again = writer_of(out, catalogue)
    run(again, [item_of(catalogue, "sub/doe")])  # though pending() would have left it out
    assert (again.written, again.failed) == (["sub/doe"], {})
    assert (out / "sub" / "doe_heat.png").read_bytes() == before
    assert rows_of(out)[0]["status"] == "ok"
    writer_of(out, catalogue, overwrite=True).write(item_of(catalogue, "sub/doe"))
    assert (out / "sub" / "doe_heat.png").read_bytes() != before


def test_the_record_tells_the_content_before_the_input_was_read(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    item = item_of(catalogue, "sub/doe")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(inputs / "sub" / "doe.png")
    writer = writer_of(out, catalogue)
    run(writer, [item])
    assert "were changed while it was being scored" in writer.failed["sub/doe"]
    assert not (out / "sub" / "doe_heat.png").exists()


def test_inputs_of_earlier_runs_stay_in_the_tables(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for file in ("doe.png", "john.nii.gz"):
        catalogue = catalogue_of(inputs / "sub" / file)
        run(writer_of(out, catalogue), scored_items(catalogue))
    assert {row["name"] for row in rows_of(out)} == {"doe", "john"}
    assert RunDocument.read(out / "results.json").summary.inputs == 2
