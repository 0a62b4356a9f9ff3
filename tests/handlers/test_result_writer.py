# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import logging
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image
from result_runs import (
    OWN,
    Item,
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

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data import FaultTolerantDataset, LoadInputd
from monai_anomalyclip.writers import InputState, RunDocument
from monai_anomalyclip.writers.slice_pictures import montage


def test_a_run_writes_files_tables_report_and_notice(
    inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (inputs / "bad.png").write_text("no picture")
    catalogue = catalogue_of(inputs)
    out = tmp_path / "deep" / "out"
    writer = writer_of(out, catalogue, threshold=0.25)
    bad = {"name": "bad", "error": "Cannot read 'bad.png': cut."}
    frame, volume = scored(catalogue.items()[1], threshold=0.5), item_of(catalogue, "sub/john")
    assert frame["name"] == "sub/doe"
    with caplog.at_level(logging.INFO):
        engine = run(writer, [frame, bad, volume])
    assert files_of(out) == sorted([
        *OWN, "sub/doe_heat.png", "sub/doe_mask.png", "sub/doe_overlay.jpg",
        "sub/john_map.nii.gz", "sub/john_mask.nii.gz", "sub/john_overlay.jpg", "sub/john_worst.jpg",
    ])  # fmt: skip
    rows = {(row["name"], row["slice"]): row for row in rows_of(out)}
    assert list(rows) == [
        ("bad", ""), ("sub/doe", ""), *(("sub/john", str(i)) for i in range(7)), ("sub/john", "all"),
    ]  # fmt: skip
    assert (rows["bad", ""]["status"], rows["bad", ""]["reason"]) == ("failed", "Cannot read 'bad.png': cut.")
    picture = rows["sub/doe", ""]
    assert float(picture["anomaly_score"]) == pytest.approx(0.1)
    assert float(picture["map_max"]) == pytest.approx(float(frame["anomaly_map"].max()), rel=1e-5)
    assert float(picture["area_fraction"]) == pytest.approx(float(frame["pred"].float().mean()), rel=1e-5)
    heat = volume["anomaly_map"][0].numpy()
    for index in range(7):  # no pred: the map is thresholded
        row = rows["sub/john", str(index)]
        assert float(row["anomaly_score"]) == pytest.approx(0.1 * (index + 1), rel=1e-5)
        assert float(row["map_max"]) == pytest.approx(heat[..., index].max(), rel=1e-5)
        assert float(row["area_fraction"]) == pytest.approx((heat[..., index] >= 0.25).mean(), rel=1e-5)
    assert float(rows["sub/john", "all"]["anomaly_score"]) == pytest.approx(0.7, rel=1e-5)
    np.testing.assert_array_equal(np.asarray(nib.load(out / "sub/john_mask.nii.gz").dataobj), heat >= 0.25)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "sub/doe_mask.png")) / 255, frame["pred"])
    for file in ("NOTICE.txt", "report.html", "results.json"):
        assert RESEARCH_USE_ONLY in (out / file).read_text()
    assert writer.written == ["sub/doe", "sub/john"]
    assert writer.failed == {"bad": "Cannot read 'bad.png': cut."}
    assert engine.failures == {}  # type: ignore[attr-defined]
    assert "2 results written, 1 inputs failed; the folder now holds 2 of 3." in caplog.text
    assert str(tmp_path) not in caplog.text
    assert out.stat().st_mode & 0o777 == 0o700
    assert [path for path in out.rglob("*") if path.stat().st_mode & 0o077] == []  # folders, too


def test_saturated_scores_keep_their_rank_in_record_tables_and_pictures(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scores are 1; the margins, highest in the middle, say which slices come first, and the pictures show them."""
    orders = []

    def spy(*arguments: Any, **options: Any) -> Any:
        orders.append(arguments[4])
        return montage(*arguments, **options)

    monkeypatch.setattr("monai_anomalyclip.writers.scored_input.montage", spy)
    catalogue = catalogue_of(inputs)
    margins = torch.tensor([20.0, 21.0, 25.0, 40.0, 30.0, 22.0, 19.0])
    volume = {**item_of(catalogue, "sub/john"), "anomaly_score": torch.ones(7), "anomaly_margin": margins}
    out = tmp_path / "out"
    run(writer_of(out, catalogue), [volume])
    (record,) = RunDocument.read(out / "results.json").inputs
    expected = [3, 4, 2, 5, 1, 0]
    assert [peak.index for peak in record.most_suspicious] == expected
    assert [peak.margin for peak in record.most_suspicious] == margins[expected].tolist()
    assert record.score_margin == 40.0
    assert orders == [[*expected, 6]]
    assert [float(row["score_margin"]) for row in rows_of(out)] == [*margins.tolist(), 40.0]
    text = (out / "report.html").read_text()
    assert "Logit margins of 7 slices, from 19.000 to 40.000, the highest at slice 3." in text


def test_results_json_holds_everything(inputs: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(inputs)
    (tmp_path / "model.pt").write_bytes(b"prompts")
    writer = writer_of(
        tmp_path / "out", catalogue, threshold=0.25, prompts=tmp_path / "model.pt", settings={"sigma": 4.0}
    )
    run(writer, scored_items(catalogue))
    document = RunDocument.read(tmp_path / "out" / "results.json")
    assert document.summary.model_dump() == {"inputs": 2, "ok": 2, "failed": 0, "skipped_files": 0}
    assert document.settings["threshold"] == 0.25
    assert document.settings["sigma"] == 4.0
    assert document.settings["preset"] == "auto"
    assert document.model.settings == {"method": "Network", "depth": 3}
    assert len(str(document.model.prompts_sha256)) == 64
    assert document.device == "cpu"
    frame, volume = document.inputs
    assert (frame.name, frame.kind, frame.frames) == ("sub/doe", "frame", 1)
    assert (volume.name, volume.frames, volume.plane) == ("sub/john", 7, "axial")
    assert list(volume.outputs) == [
        "sub/john_map.nii.gz", "sub/john_mask.nii.gz", "sub/john_overlay.jpg", "sub/john_worst.jpg",
    ]  # fmt: skip
    assert all((tmp_path / "out" / output).is_file() for record in document.inputs for output in record.outputs)
    assert volume.timings is not None
    assert volume.timings.score_s == 0.5
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == 4 + 8  # two pictures, their thumbnails; the viewers' slices
    assert "sub/john" in report


def test_private_names_leave_no_trace_of_paths(
    phantoms: ModuleType, inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = inputs.rename(tmp_path / "QUIMBY_ROSAMUND")
    (folder / "sub" / "doe.png").rename(folder / "sub" / "rosamund.png")
    (folder / "sub" / "john.nii.gz").rename(folder / "quimby.nii.gz")
    phantoms.make_series(folder / "1.2.840.1" / "IM", count=2)
    phantoms.make_cine(folder / "1.2.840.2", count=2)
    (folder / "quimby-text.png").write_text("no picture")
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        catalogue = catalogue_of(folder, keep_names=False)
        writer = writer_of(out, catalogue, outputs="nifti,png")
        items = []
        for item in FaultTolerantDataset(catalogue.items(), LoadInputd()):
            items.append(item if "error" in item else scored(item))
        assert len(writer.pending(catalogue.items())) == 5
        run(writer, items)
    assert (len(writer.written), len(writer.failed)) == (4, 1)
    texts = [caplog.text]
    for path in (path for path in out.rglob("*") if path.is_file()):
        texts.append(path.relative_to(out).as_posix())
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("latin-1")
        texts.append(re.sub("base64,[A-Za-z0-9+/=]+", "", text))  # of the report's pictures
    for secret in ("quimby", "rosamund", "1.2.840", "1_2_840", str(tmp_path), phantoms.CANARY):
        assert not [text for text in texts if secret.lower() in text.lower()], secret


def test_a_failure_of_one_input_does_not_keep_the_others(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "Out of Doe"
    catalogue = catalogue_of(inputs)
    items = scored_items(catalogue)
    items[0]["anomaly_map"] = items[0]["anomaly_map"] * torch.nan

    writer = writer_of(out, catalogue)
    engine = run(writer, items)
    assert writer.failed == {"sub/doe": "ValueError: The network gave scores or maps that are not finite."}
    assert engine.failures == writer.failed  # type: ignore[attr-defined]
    assert writer.written == ["sub/john"]
    assert not (out / "sub" / "doe_overlay.jpg").exists()

    def full(folder: Path, name: str, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", f"{folder}/{name}_map 1.2.840.113619.2.55")

    monkeypatch.setattr("monai_anomalyclip.handlers.result_writer.write_results", full)
    caplog.clear()
    third = writer_of(out, catalogue, overwrite=True)
    engine = Engine(lambda _, item: [item])
    engine.failures, engine.passing = {}, set()  # type: ignore[attr-defined]
    third.attach(engine)
    engine.run(scored_items(catalogue)[:1])
    assert engine.passing == {"sub/doe"}  # type: ignore[attr-defined]  # with room on the disk it may do well
    for text in (third.failed["sub/doe"], caplog.text, rows_of(out)[0]["reason"]):
        assert "No space left on device" in text
        assert "Doe" not in text
        assert "113619" not in text


def test_a_disk_too_full_for_the_reason_does_not_end_the_run(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    items = scored_items(catalogue)
    items[0]["anomaly_map"] = items[0]["anomaly_map"] * torch.nan
    writer = writer_of(out, catalogue)
    put = writer.folder.put

    def full(state: InputState) -> None:
        if state.state == "failed":
            raise OSError(28, "No space left on device", f"/home/doe/{state.name}_record.json")
        put(state)

    monkeypatch.setattr(writer.folder, "put", full)
    engine = run(writer, items)
    assert "sub/doe: the record could not be written (No space left on device)." in caplog.text
    assert list(engine.failures) == ["sub/doe"]  # type: ignore[attr-defined]
    assert writer.written == ["sub/john"]


def test_interruption_saves_what_there_is(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"

    def interrupted(engine: Engine, item: Item) -> list[Item]:
        if engine.state.iteration == 2:
            raise KeyboardInterrupt
        return [item]

    engine = Engine(interrupted)
    writer_of(out, catalogue).attach(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.run(scored_items(catalogue))
    engine.fire_event(Events.TERMINATE)  # as FaultTolerantEvaluator does
    assert [(row["name"], row["status"]) for row in rows_of(out)] == [("sub/doe", "ok")]
    assert RunDocument.read(out / "results.json").summary.ok == 1
    assert (out / "report.html").is_file()


def test_dicom_objects_are_written_where_they_apply(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "ct", count=2, size=(32, 40))
    catalogue, out = catalogue_of(tmp_path / "ct"), tmp_path / "out"
    (name,) = catalogue.sources
    writer = writer_of(out, catalogue, outputs=["default", "pm"], deterministic_uids=True)
    run(writer, scored_items(catalogue))
    expected = [
        f"{name}{end}"
        for end in ("_map.nii.gz", "_mask.nii.gz", "_overlay.jpg", "_pm.dcm", "_seg.dcm", "_sr.dcm", "_worst.jpg")
    ]
    assert files_of(out) == sorted([*OWN, *expected])
    (record,) = RunDocument.read(out / "results.json").inputs
    assert sorted(record.outputs) == sorted(expected)
    assert (record.modality, record.files_used) == ("CT", 2)


def test_deterministic_uids_depend_on_input_and_settings_alone(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "ct", count=2, size=(32, 40))

    def uids(out: str, inputs: str = "ct", **options: Any) -> tuple[str, str]:
        catalogue = catalogue_of(tmp_path / inputs, options=options.pop("reading", None))
        arguments = {"outputs": "seg,sr", "settings": {"sigma": 4.0}, **options}
        writer = writer_of(tmp_path / out, catalogue, deterministic_uids=True, **arguments)
        run(writer, scored_items(catalogue))
        assert not writer.failed
        segmentation, report = (pydicom.dcmread(next((tmp_path / out).glob(f"*_{kind}.dcm"))) for kind in ("seg", "sr"))
        (algorithm,) = segmentation.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        assert "sigma=" in algorithm.AlgorithmParameters
        return str(segmentation.SOPInstanceUID), str(report.SOPInstanceUID)

    first = uids("out")
    shutil.copytree(tmp_path / "ct", tmp_path / "deeper" / "copy", copy_function=shutil.copy)  # with new times
    assert uids("copied", "deeper/copy") == first
    assert uids("more kinds", outputs="seg,sr,pm,nifti") == first
    others = [
        uids("sigma", settings={"sigma": 1.0}),
        uids("precision", settings={"sigma": 4.0, "precision": "bfloat16"}),
        uids("code", segment_type="10200004^SCT^Liver"),
        uids("network", network=Network(image_size=518)),
        uids("preset", reading={"preset": "percentile"}),
    ]
    path = next((tmp_path / "ct").iterdir())
    changed = pydicom.dcmread(path)
    changed.ImageComments = "As another archive hands it out: other bytes of the same image."
    changed.save_as(path)
    assert uids("other bytes") == first
    changed.SOPInstanceUID = changed.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    changed.save_as(path)
    others.append(uids("another image"))
    assert len({uid for pair in [first, *others] for uid in pair}) == 2 * (1 + len(others))


def test_bad_output_folders_and_arguments(inputs: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(inputs)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/nothing/here")):
        with pytest.raises(OSError, match=r"Cannot write to the output folder .* choose another one"):
            writer_of(folder, catalogue)
    for wrong, match in (
        ({"threshold": 2}, r"threshold must lie in \[0, 1\], got 2"),
        ({"threshold": float("nan")}, r"threshold must lie in \[0, 1\], got nan"),
        ({"outputs": "jpeg"}, "Unknown output jpeg"),
        ({"segment_type": "liver"}, "A code must read 'code.scheme.meaning'"),
    ):
        with pytest.raises(ValueError, match=match):
            writer_of(tmp_path / "out", catalogue, **wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["scores.csv", "results.json", "report.html", "NOTICE.txt"])
def test_files_of_another_program_are_not_touched(inputs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a,b\n")
    before = sorted(tmp_path.iterdir())
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=f"{name}' in the output folder is not .* choose another output folder"):
            writer_of(tmp_path, catalogue_of(inputs), overwrite=overwrite)
    assert (tmp_path / name).read_text() == "a,b\n"
    assert sorted(tmp_path.iterdir()) == before


def test_scores_that_belong_to_another_slice_axis_are_refused(inputs: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(inputs)
    with pytest.raises(ValueError, match="'sub/john' has 7 scores for 5 slices: give the writer the inferer's"):
        writer_of(tmp_path / "out", catalogue, slice_axis=0).write(item_of(catalogue, "sub/john"))
    assert files_of(tmp_path / "out") == ["NOTICE.txt"]
