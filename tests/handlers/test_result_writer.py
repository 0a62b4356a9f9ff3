# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
from __future__ import annotations

import csv
import gzip
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from pydicom.uid import Comprehensive3DSRStorage
from torch import nn

import monai_anomalyclip
from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data import FaultTolerantDataset, InputCatalogue, InputPart, LoadInputd, load_input
from monai_anomalyclip.handlers.result_writer import AnomalyResultWriter
from monai_anomalyclip.writers import RunDocument, known_names

Item = dict[str, Any]


class Network(nn.Module):
    """As much of a network as a record tells."""

    backbone_name = "ViT-tiny"
    backbone_sha256 = "ab" * 32

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = {"depth": 3, **settings}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A picture and a volume, in a folder that is called after somebody."""
    folder = tmp_path / "DOE_JOHN" / "sub"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "doe.png")
    volume = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1, 4, 1])), folder / "john.nii.gz")
    return tmp_path / "DOE_JOHN"


def catalogue_of(inputs: Path, **options: Any) -> InputCatalogue:
    return InputCatalogue(inputs, **{"keep_names": True, **options})


def writer_of(out: Path, catalogue: InputCatalogue, **options: Any) -> AnomalyResultWriter:
    return AnomalyResultWriter(out, catalogue, options.pop("network", Network()), **options)


def scored(item: Item, threshold: float | None = None) -> Item:
    """What an evaluator would give of an item of the catalogue."""
    image = load_input(item["image"]) if isinstance(item["image"], InputPart) else item["image"]
    pixels = image.as_tensor().float()
    pixels = pixels / 255 if image.dtype == torch.uint8 else pixels
    heat = torch.rand(1, *image.shape[1:])
    slices = 1 if heat.ndim == 3 else heat.shape[3]
    result = {
        **item,
        "image": MetaTensor(pixels, meta=image.meta),
        "anomaly_map": MetaTensor(heat),
        "anomaly_score": torch.linspace(0.1, 0.7, slices),
        "score_s": 0.5,
    }
    return result if threshold is None else {**result, "pred": (heat >= threshold).to(torch.uint8)[0]}


def scored_items(catalogue: InputCatalogue) -> list[Item]:
    return [scored(item) for item in catalogue.items()]


def item_of(catalogue: InputCatalogue, name: str) -> Item:
    (item,) = (item for item in catalogue.items() if item["name"] == name)
    return scored(item)


def run(writer: AnomalyResultWriter, items: Sequence[Item]) -> Engine:
    engine = Engine(lambda _, item: [item])
    engine.failures = {}  # type: ignore[attr-defined]
    writer.attach(engine)
    engine.run(items)
    return engine


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files_of(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".report" not in path.parts
    )


OWN = ["NOTICE.txt", "journal.jsonl", "report.html", "results.json", "scores.csv"]


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
        *OWN, "sub/doe_heat.png", "sub/doe_mask.png", "sub/doe_overlay.png",
        "sub/john_map.nii.gz", "sub/john_mask.nii.gz", "sub/john_overlay.png",
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


def test_results_json_holds_everything(inputs: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(inputs)
    (tmp_path / "model.pt").write_bytes(b"prompts")
    writer = writer_of(
        tmp_path / "out", catalogue, threshold=0.25, prompts=tmp_path / "model.pt", settings={"sigma": 4.0}
    )
    run(writer, scored_items(catalogue))
    document = RunDocument.read(tmp_path / "out" / "results.json")
    assert document.summary == {"inputs": 2, "ok": 2, "failed": 0, "skipped_files": 0}
    assert document.settings["threshold"] == 0.25
    assert document.settings["sigma"] == 4.0
    assert document.settings["preset"] == "auto"
    assert document.model["settings"] == {"method": "Network", "depth": 3}
    assert len(str(document.model["prompts_sha256"])) == 64
    assert document.device == "cpu"
    frame, volume = document.inputs
    assert (frame.name, frame.kind, frame.frames) == ("sub/doe", "frame", 1)
    assert (volume.name, volume.frames, volume.plane) == ("sub/john", 7, "axial")
    assert volume.outputs == ["sub/john_map.nii.gz", "sub/john_mask.nii.gz", "sub/john_overlay.png"]
    assert all((tmp_path / "out" / output).is_file() for record in document.inputs for output in record.outputs)
    assert volume.timings is not None
    assert volume.timings["score_s"] == 0.5
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == 2
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


def test_a_second_run_continues(inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    first = writer_of(out, catalogue)
    first.write(item_of(catalogue, "sub/doe"))
    first.record_failure("sub/john", "cut")
    assert not first.already_done("sub/john")

    second = writer_of(out, catalogue_of(inputs, known_names=known_names(out)))
    with caplog.at_level(logging.INFO):
        assert [item["name"] for item in second.pending(catalogue.items())] == ["sub/john"]
    assert "1 of 2 inputs are finished already and left out." in caplog.text
    second.write(item_of(catalogue, "sub/john"))
    second.finish()
    assert [row["status"] for row in rows_of(out) if row["name"] == "sub/john"] == ["ok"] * 8
    assert RunDocument.read(out / "results.json").summary["ok"] == 2
    assert (out / "report.html").read_text().count("data:image/jpeg;base64,") == 2  # also the one of the first run
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


def test_another_process_is_kept_out_until_the_run_is_finished(inputs: Path, tmp_path: Path) -> None:
    script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    catalogue = catalogue_of(inputs)
    writer = writer_of(tmp_path / "out", catalogue)
    engine = Engine(lambda _, item: [item])
    said: list[subprocess.CompletedProcess[str]] = []

    def other(_: Engine) -> None:
        said.append(subprocess.run(command, capture_output=True, text=True, check=False))

    writer.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, other)
    for _ in range(2):  # the second time it is held anew
        engine.run(scored_items(catalogue)[:1])
        assert "BlockingIOError" in said[-1].stderr
        other(engine)
        assert said[-1].returncode == 0


def test_an_output_that_was_deleted_is_made_again(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    run(writer_of(out, catalogue), scored_items(catalogue))
    for name, file in (("sub/doe", "sub/doe_overlay.png"), ("sub/john", "sub/john_map.nii.gz")):
        (out / file).unlink()
        writer = writer_of(out, catalogue)
        assert [item["name"] for item in writer.pending(catalogue.items())] == [name]
        writer.write(item_of(catalogue, name))
        assert (out / file).is_file()
        assert writer.already_done(name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"threshold": 0.4}, "threshold"),
        ({"outputs": "png"}, "outputs"),
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
    assert writer_of(out, catalogue, **change).already_done("sub/doe")


def test_reading_options_version_and_files_count_too(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    run(writer_of(out, catalogue), scored_items(catalogue))
    other = catalogue_of(inputs, options={"preset": "percentile", "nifti_form": "sform"})
    with pytest.raises(FileExistsError, match="differ in nifti_form, preset:"):
        writer_of(out, other).pending(other.items())
    with monkeypatch.context() as patch:
        patch.setattr("monai_anomalyclip.handlers.result_writer.__version__", "9")
        with pytest.raises(FileExistsError, match="differ in version:"):
            writer_of(out, catalogue).pending(catalogue.items())
    assert monai_anomalyclip.__version__ != "9"
    assert writer_of(out, catalogue).pending(catalogue.items()) == []

    affine = np.diag([1.0, 1, 4, 1])
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), affine), inputs / "sub" / "john.nii.gz")
    changed = catalogue_of(inputs)
    with pytest.raises(FileExistsError, match="results of 'sub/john' that differ in the input's files:"):
        writer_of(out, changed).already_done("sub/john")
    with pytest.raises(FileExistsError, match="differ in threshold, the input's files:"):
        writer_of(out, changed, threshold=0.4).already_done("sub/john")


def test_another_patients_file_of_the_same_name_is_not_taken_for_finished(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        (tmp_path / patient).mkdir()
        data = np.zeros((30, 30, 30), np.float32)
        data[10:20, 10:20, 10:20] = ord(patient)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / patient / "t1.nii")
    first, second = (catalogue_of(tmp_path / patient, keep_names=False) for patient in ("a", "b"))
    assert list(first.sources) == list(second.sources)
    writer_of(tmp_path / "out", first).write(scored(first.items()[0]))
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")}
    (name,) = first.sources
    for _ in range(2):
        writer = writer_of(tmp_path / "out", second)
        items = list(FaultTolerantDataset(writer.pending(second.items()), LoadInputd()))
        (reason,) = writer.failed.values()
        assert reason.startswith(f"The output folder holds results of '{name}' that differ in the input's files: ")
        assert items == [{"name": name, "part": 0, "error": reason}]  # so that the run as a whole fails
        run(writer, items)
        assert [row["status"] for row in rows_of(tmp_path / "out")] == ["failed"]
        assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")} == before
    # Those of the first patient are still known.
    assert writer_of(tmp_path / "out", first).already_done(name)
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
    (out / "sub" / "doe_overlay.png").rename(tmp_path / "moved.png")
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
    assert [row["status"] for row in rows_of(out)] == ["started"]
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
    files = [f"{name}{end}" for end in ("_map.nii.gz", "_mask.nii.gz", "_overlay.png", "_seg_by_hand.dcm")]
    assert files_of(out) == sorted([*OWN, *files])


def test_an_interrupted_input_is_redone_but_other_files_are_never_replaced(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    writer = writer_of(out, catalogue)

    def killed(*_: object, **__: object) -> None:
        (out / "sub").mkdir()
        (out / "sub" / "doe_heat.png").write_bytes(b"from the run that was killed")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("monai_anomalyclip.handlers.result_writer.write_results", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.write(item_of(catalogue, "sub/doe"))
    writer.finish()
    assert [(row["name"], row["status"]) for row in rows_of(out)] == [("sub/doe", "started")]
    again = writer_of(out, catalogue)
    assert len(again.pending(catalogue.items())) == 2
    again.write(item_of(catalogue, "sub/doe"))
    assert again.already_done("sub/doe")
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
    assert "exist already" in again.failed["sub/doe"]
    assert (out / "sub" / "doe_heat.png").read_bytes() == before
    assert rows_of(out)[0]["status"] == "ok"  # what stands there is still true
    writer_of(out, catalogue, overwrite=True).write(item_of(catalogue, "sub/doe"))
    assert (out / "sub" / "doe_heat.png").read_bytes() != before


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
    assert not (out / "sub" / "doe_overlay.png").exists()

    def full(folder: Path, name: str, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", f"{folder}/{name}_map 1.2.840.113619.2.55")

    monkeypatch.setattr("monai_anomalyclip.handlers.result_writer.write_results", full)
    caplog.clear()
    third = writer_of(out, catalogue, overwrite=True)
    run(third, scored_items(catalogue)[:1])
    for text in (third.failed["sub/doe"], caplog.text, rows_of(out)[0]["reason"]):
        assert "No space left on device" in text
        assert "Doe" not in text
        assert "113619" not in text


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
    assert files_of(out) == sorted([*OWN, f"{name}_frames.csv", f"{name}_overlay.mp4", f"{name}_sr.dcm"])
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
    assert record.timings["score_s"] == pytest.approx(1.5)
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
    assert [row["status"] for row in rows_of(out)] == ["started"]
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
    assert record.warnings[-4:] == [
        "The film ends after 149 of the 150 frames that it claims.",
        "No DICOM structured report: it could not refer to the frames of a film that ends early.",
        "No DICOM segmentation of a film: its overlay is an MP4, its scores are a table.",
        "No DICOM secondary capture of a film: its overlay is an MP4, its scores are a table.",
    ]
    assert {output.replace(record.name, "") for output in record.outputs} == {"_overlay.mp4", "_frames.csv"}
    assert len(rows_of(out)) == 150


def test_a_gap_within_a_film_fails(film: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(film)
    items = scored_items(catalogue)
    writer = writer_of(tmp_path / "out", catalogue)
    run(writer, [items[0], items[2]])
    (reason,) = writer.failed.values()
    assert reason == "ValueError: Part 3 of the film begins at frame 128, but 64 were given."


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
    assert RunDocument.read(out / "results.json").summary["ok"] == 1
    assert (out / "report.html").is_file()


def test_inputs_of_earlier_runs_stay_in_the_tables(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for file in ("doe.png", "john.nii.gz"):
        catalogue = catalogue_of(inputs / "sub" / file)
        run(writer_of(out, catalogue), scored_items(catalogue))
    assert {row["name"] for row in rows_of(out)} == {"doe", "john"}
    assert RunDocument.read(out / "results.json").summary["inputs"] == 2


def test_dicom_objects_are_written_where_they_apply(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "ct", count=2, size=(32, 40))
    catalogue, out = catalogue_of(tmp_path / "ct"), tmp_path / "out"
    (name,) = catalogue.sources
    writer = writer_of(out, catalogue, outputs=["default", "pm"], deterministic_uids=True)
    run(writer, scored_items(catalogue))
    expected = [
        f"{name}{end}" for end in ("_map.nii.gz", "_mask.nii.gz", "_overlay.png", "_pm.dcm", "_seg.dcm", "_sr.dcm")
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
    changed.RescaleIntercept = float(changed.get("RescaleIntercept", 0)) + 5  # of the same UID
    changed.save_as(path)
    others.append(uids("another file"))
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


@pytest.mark.parametrize("name", ["scores.csv", "journal.jsonl", "results.json", "report.html", "NOTICE.txt"])
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


def test_a_journal_line_costs_the_same_whatever_the_folder_holds(inputs: Path, tmp_path: Path) -> None:
    catalogue, out = catalogue_of(inputs), tmp_path / "out"
    run(writer_of(out, catalogue), scored_items(catalogue))
    lines = (out / "journal.jsonl").read_text().splitlines()
    assert [(json.loads(line)["name"], json.loads(line)["status"]) for line in lines] == [
        ("sub/doe", "started"), ("sub/doe", "ok"), ("sub/john", "started"), ("sub/john", "ok"),
    ]  # fmt: skip
