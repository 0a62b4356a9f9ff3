# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageFile
from pydicom import Dataset

from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.facts import InputFacts, excluded_facts, facts_of


def facts(path: Path, **options: Any) -> list[InputFacts]:
    catalogue = InputCatalogue(path, options=options)
    return [facts_of(name, source) for name, source in catalogue.sources.items()]


@pytest.fixture(autouse=True)
def no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever decodes pixels or voxels is gone."""

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("pixels were read")  # no Exception, which might be caught

    for place in ("sources.load_series", "frames.load_frame", "nifti.load_volume", "nifti._read_voxels"):
        monkeypatch.setattr(f"monai_anomalyclip.data.{place}", forbidden)
    monkeypatch.setattr("monai_anomalyclip.data.dicom.reader.decode_frames", forbidden)
    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)


def test_series(phantoms: ModuleType, tmp_path: Path) -> None:
    def without_region(header: Dataset, index: int) -> None:
        header.ProtocolName = header.SeriesDescription = header.StudyDescription = ""

    paths = phantoms.make_series(tmp_path, count=6, size=(12, 14), gap=[2], edit=without_region)
    (fact,) = facts(tmp_path)
    assert fact.name.startswith("ct_")
    assert (fact.kind, fact.frames, fact.size, fact.geometry) == ("CT volume", 5, "12 x 14", "gaps")
    assert fact.preset == "ct-soft"
    assert any("ct-brain" in note for note in fact.notes)  # the region is not known: which presets there are
    assert fact.problem == ""
    assert fact.series == pydicom.dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID
    assert Path(fact.path or "").parent == tmp_path
    (fact,) = facts(tmp_path, preset="ct-lung")
    assert fact.preset == "ct-lung"


def test_colour_cine_and_split_series(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_cine(tmp_path / "us", count=7)
    (fact,) = facts(tmp_path / "us")
    assert (fact.kind, fact.frames, fact.geometry, fact.preset) == ("US cine (colour)", 7, "no position", None)
    phantoms.make_series(tmp_path / "mr", count=3, modality="MR", echoes=(10, 20))
    first, second = facts(tmp_path / "mr")
    assert first.frames == second.frames == 3
    assert first.series == second.series
    assert "echo time 10" in first.notes[0]
    assert "echo time 20" in second.notes[0]


def test_series_that_is_left_out(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=1, localizer=True)
    (series,) = InputCatalogue(tmp_path, empty=True).excluded
    fact = excluded_facts(series)
    assert (fact.name, fact.frames, fact.geometry, fact.preset) == ("-", 1, "left out: localizer", None)


def test_nifti_picture_and_pages(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.diag([0.5, 0.75, 5, 1])), tmp_path / "v.nii.gz")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    pages = [Image.fromarray(np.zeros((side, 9), np.uint8)) for side in (7, 8)]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:])
    volume, *pictures = sorted(facts(tmp_path), key=lambda fact: fact.kind != "volume")
    assert (volume.size, volume.geometry, volume.preset) == ("4 x 5 x 6", "0.5 x 0.75 x 5 mm", "auto")
    assert [(fact.frames, fact.size) for fact in pictures] == [(1, "30 x 40"), (1, "7 x 9"), (1, "8 x 9")]


def test_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "v.mkv"), "w") as film:
        stream = film.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        for _ in range(7):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 32, 3), np.uint8), "rgb24")))
        film.mux(stream.encode(None))
    (fact,) = facts(tmp_path, stride=3)
    assert (fact.kind, fact.frames, fact.size) == ("video", 3, "16 x 32")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_cannot_be_read_has_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "DOE"
    folder.mkdir()
    (folder / "text.png").write_text("text")
    (folder / "text.nii").write_text("text")
    (folder / "text.mp4").write_text("text")
    (folder / "cut.tif").write_bytes(b"II*\0\x08\0\0\0\xff\xff")
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6, 2), np.int16), np.eye(4)), folder / "series.nii")
    for fact in facts(folder):
        assert fact.problem
        assert "DOE" not in fact.problem
        assert "text" not in fact.problem
        assert fact.frames is None
    (series,) = (fact for fact in facts(folder) if "time points" in fact.problem)
    assert "2 time points" in series.problem
    assert [fact.problem for fact in facts(folder, time_point=1) if fact.name == series.name] == [""]


def test_pillow_may_raise_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_text("text")

    def broken(path: Path, **_: object) -> None:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image, "open", broken)
    assert [fact.problem for fact in facts(tmp_path)] == [
        f"Cannot read '{fact.name}': the file is truncated or damaged (not a TIFF file)." for fact in facts(tmp_path)
    ]


def test_uids_and_paths_only_on_request() -> None:
    fact = InputFacts("a", "CT volume", series="1.2.3", path="/DOE/a")
    for uids in (True, False):
        for paths in (True, False):
            shown = fact.as_dict(uids, paths)
            assert ("series" in shown, "path" in shown) == (uids, paths)
            assert ("1.2.3" in str(shown), "/DOE/a" in str(shown)) == (uids, paths)
            assert shown["name"] == "a"
