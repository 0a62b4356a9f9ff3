# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from pydicom import Dataset

from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource, ReadOptions, VideoSource
from monai_anomalyclip.writers.dicom import Provenance
from monai_anomalyclip.writers.findings import Findings, view_of
from monai_anomalyclip.writers.scored_input import (
    ScoredInput,
    film_notes,
    map_precision,
    write_results,
    write_series_report,
)

PROVENANCE = Provenance("0f" * 32, "ViT-tiny", {"threshold": 0.5})
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
GRID = ("GetSize", "GetOrigin", "GetSpacing", "GetDirection")


def scored(path: Path, **options: Any) -> ScoredInput:
    """The only input at a path with a random map."""
    (source,) = InputCatalogue(path, **options).sources.values()
    image = source.load()
    heat = torch.rand(1, *image.shape[1:])
    view = None if source.kind == "frame" else view_of(source, image, "auto")
    maps = (heat[None] if view is None else view.to_slices(heat))[:, 0].numpy()
    findings = Findings.of(maps.max(axis=(1, 2)), maps, maps >= 0.5)
    return ScoredInput(source, image, heat, heat >= 0.5, findings, view, caption="c")


def write(folder: Path, result: ScoredInput, outputs: str, **options: Any) -> tuple[list[str], list[str]]:
    """Names of the files and notes."""
    paths, notes = write_results(
        folder, "r", result, outputs.split(","), provenance=PROVENANCE, threshold=0.5, **options
    )
    assert {path for path in folder.iterdir() if path.is_file()} == set(paths)
    return [path.name for path in paths], notes


def series_reader(files: list[Path] | list[str]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    return reader.Execute()


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal", "oblique"])
@pytest.mark.parametrize("numbers", ["ascending", "reversed"])
def test_nifti_of_a_series_lies_where_simpleitk_reads_the_series(
    phantoms: ModuleType, tmp_path: Path, orientation: str, numbers: str
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    phantoms.make_series(folder, count=4, size=(10, 12), orientation=orientation, instance_numbers=numbers)
    result = scored(folder)
    write(out, result, "map32")
    theirs = series_reader(list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))))
    for name, values in (("r_map.nii.gz", result.anomaly_map), ("r_mask.nii.gz", result.mask)):
        ours = sitk.ReadImage(str(out / name))
        for read in GRID:
            np.testing.assert_allclose(getattr(ours, read)(), getattr(theirs, read)(), atol=1e-4, err_msg=read)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(ours).T, values[0].numpy())
    # The map at a voxel is the map of the pixels that the file stores there.
    heat = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "r_map.nii.gz")))
    place = {tuple(file.header.ImagePositionPatient): file for file in result.source.series.instances}  # type: ignore[attr-defined]
    for k in range(4):
        origin = theirs.TransformIndexToPhysicalPoint((0, 0, k))
        file = place[min(place, key=lambda position: float(np.abs(np.subtract(position, origin)).max()))]
        index = [frame.instance for frame in result.source.series.frames].index(file)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(heat[k], result.anomaly_map[0, :, :, index].numpy().T)


def test_nifti_of_a_real_series(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "dicom" / "dicom2nifti" / "generic" / "anatomical" / "001"
    write(tmp_path, scored(folder), "nifti")
    theirs = series_reader(list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))))
    ours = sitk.ReadImage(str(tmp_path / "r_map.nii.gz"))
    for read in GRID:
        np.testing.assert_allclose(getattr(ours, read)(), getattr(theirs, read)(), atol=1e-3, err_msg=read)


def test_a_tilted_stack_gets_a_nifti_on_request_only(phantoms: ModuleType, tmp_path: Path) -> None:
    paths = phantoms.make_series(tmp_path / "in", count=4, tilt=15)
    result = scored(tmp_path / "in")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    names, notes = write(tmp_path / "a", result, "nifti")
    assert names == ["r_overlay.jpg", "r_worst.jpg"]
    assert notes == [
        "No NIfTI: the stack is no regular volume (gantry tilt); a sheared one is written on request (sheared_nifti)."
    ]
    names, notes = write(tmp_path / "b", result, "nifti", sheared_nifti=True)
    assert (names, notes) == (["r_map.nii.gz", "r_mask.nii.gz", "r_overlay.jpg", "r_worst.jpg"], [])
    written = nib.load(tmp_path / "b" / "r_map.nii.gz")
    assert np.abs(np.asarray(written.dataobj) - result.anomaly_map[0].numpy()).max() <= 1 / 65536
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]  # in the order along the normal
    for index, header in enumerate(headers):
        for column, row in ((0, 0), (19, 0), (0, 15)):
            ours = LPS @ written.affine @ [column, row, index, 1]
            place = phantoms.slice_points(header, header.ImageOrientationPatient, header.ImagePositionPatient)
            np.testing.assert_allclose(ours[:3], place[row, column], atol=1e-3)


def edit_spacing(header: Dataset, index: int) -> None:
    del header.PixelSpacing


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"offsets": [0, 3, 7, 8]}, "No NIfTI: the stack is no regular volume (irregular spacing)."),
        ({"gap": [1]}, "No NIfTI: the stack is no regular volume (gaps)."),
        ({"edit": edit_spacing}, "No NIfTI: position or pixel spacing of the slices is unknown."),
    ],
)
def test_no_nifti_where_none_can_be_true(
    phantoms: ModuleType, tmp_path: Path, options: dict[str, Any], note: str
) -> None:
    phantoms.make_series(tmp_path / "in", **options)
    (tmp_path / "out").mkdir()
    result = scored(tmp_path / "in")
    assert write(tmp_path / "out", result, "nifti", sheared_nifti=True) == (["r_overlay.jpg", "r_worst.jpg"], [note])


def test_dicom_objects_hold_what_was_found(phantoms: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    phantoms.make_series(tmp_path / "in", count=4, size=(32, 40), instance_numbers="reversed")
    result = scored(tmp_path / "in")
    codes = {"segment_category": "91723000^SCT^Anatomical Structure", "segment_type": "10200004^SCT^Liver"}
    names, notes = write(tmp_path / "out", result, "nifti,seg,sr,pm,sc", **codes)
    assert notes == []
    assert set(names) >= {"r_seg.dcm", "r_sr.dcm", "r_pm.dcm", "r_sc.dcm"}
    frames = [frame.instance.header for frame in result.source.series.frames]  # type: ignore[attr-defined]
    stored = hd.seg.segread(tmp_path / "out" / "r_seg.dcm")
    masks = stored.get_pixels_by_source_instance([header.SOPInstanceUID for header in frames], combine_segments=True)
    np.testing.assert_array_equal(masks, result.mask[0].permute(2, 1, 0).numpy())
    description = stored.get_segment_description(1)
    assert description.segmented_property_type.meaning == "Liver"
    assert description.segmented_property_category.meaning == "Anatomical Structure"

    parametric = pydicom.dcmread(tmp_path / "out" / "r_pm.dcm")
    places = [
        tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient))
        for group in parametric.PerFrameFunctionalGroupsSequence
    ]
    expected = [tuple(map(float, header.ImagePositionPatient)) for header in frames]
    order = [expected.index(place) for place in places]
    maps = result.anomaly_map[0].permute(2, 1, 0).numpy()[order]
    np.testing.assert_array_equal(parametric.pixel_array, maps)

    capture = pydicom.dcmread(tmp_path / "out" / "r_sc.dcm")
    assert (int(capture.NumberOfFrames), capture.Rows, capture.Columns) == (4, 32, 40)
    report = pydicom.dcmread(tmp_path / "out" / "r_sr.dcm")
    numbers = [float(value) for value in numeric_values(report)]
    assert any(number == pytest.approx(result.findings.anomaly_score, abs=1e-6) for number in numbers)


def numeric_values(item: Dataset) -> Iterator[str]:
    if "MeasuredValueSequence" in item and item.MeasuredValueSequence:
        yield item.MeasuredValueSequence[0].NumericValue
    for child in item.get("ContentSequence", []):
        yield from numeric_values(child)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ("png", ["r_overlay.jpg", "r_worst.jpg"]),
        ("sr", ["r_overlay.jpg", "r_worst.jpg", "r_sr.dcm"]),
        ("sc,seg", ["r_overlay.jpg", "r_worst.jpg", "r_seg.dcm", "r_sc.dcm"]),
        ("nifti", ["r_map.nii.gz", "r_mask.nii.gz", "r_overlay.jpg", "r_worst.jpg"]),
    ],
)
def test_outputs_of_a_volume(phantoms: ModuleType, tmp_path: Path, outputs: str, names: list[str]) -> None:
    phantoms.make_series(tmp_path / "in", count=2, size=(32, 40))
    (tmp_path / "out").mkdir()
    assert write(tmp_path / "out", scored(tmp_path / "in"), outputs) == (names, [])


def test_outputs_of_pictures(phantoms: ModuleType, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    phantoms.make_series(tmp_path / "dx", count=1, size=(32, 40), positioned=False, modality="DX")
    for folder in ("1", "2", "3"):
        (tmp_path / folder).mkdir()
    assert write(tmp_path / "1", scored(tmp_path / "a.png"), "nifti,seg,sr")[0] == ["r_overlay.jpg"]
    assert write(tmp_path / "2", scored(tmp_path / "a.png"), "png") == (
        ["r_heat.png", "r_mask.png", "r_overlay.jpg"],
        [],
    )
    result = scored(tmp_path / "dx")
    names, notes = write(tmp_path / "3", result, "nifti,seg,sr,png,pm,sc")
    assert names[3:] == ["r_seg.dcm", "r_sr.dcm", "r_sc.dcm"]
    assert notes == ["No DICOM parametric map: the series lacks positions or pixel spacing."]
    stored = hd.seg.segread(tmp_path / "3" / "r_seg.dcm")
    np.testing.assert_array_equal(np.squeeze(stored.pixel_array), result.mask[0].numpy())


def test_existing_files_are_replaced(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "in", count=2, size=(32, 40))
    (tmp_path / "out").mkdir()
    result = scored(tmp_path / "in")
    names = ("r_map.nii.gz", "r_mask.nii.gz", "r_overlay.jpg", "r_seg.dcm", "r_sr.dcm", "r_pm.dcm", "r_sc.dcm")
    for name in names:
        (tmp_path / "out" / name).write_text("left by a run that was killed")
    write(tmp_path / "out", result, "nifti,seg,sr,pm,sc")
    assert all(b"left by" not in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_an_object_that_cannot_be_written_does_not_keep_the_others(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantoms.make_series(tmp_path / "in", count=2, size=(32, 40))
    (tmp_path / "out").mkdir()
    for kind, error in (("segmentation", ValueError("odd header")), ("parametric_map", KeyError("Rows"))):

        def broken(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(f"monai_anomalyclip.writers.dicom.{kind}.write_{kind}", broken)
    with pytest.raises(ValueError, match=r"seg \(ValueError\); pm \(KeyError\); the other files are there"):
        write(tmp_path / "out", scored(tmp_path / "in"), "nifti,seg,sr,pm,sc")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "r_map.nii.gz", "r_mask.nii.gz", "r_overlay.jpg", "r_sc.dcm", "r_sr.dcm", "r_worst.jpg",
    ]  # fmt: skip


def test_what_a_film_does_not_get_is_said(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_cine(tmp_path / "us")
    (cine,) = InputCatalogue(tmp_path / "us").sources.values()
    assert film_notes(cine, ["sr", "png"], 3, 3) == []
    assert film_notes(cine, ["sr", "sc", "seg"], 3, 3) == [
        "No DICOM segmentation of a film: its overlay is an MP4, its scores are a table.",
        "No DICOM secondary capture of a film: its overlay is an MP4, its scores are a table.",
    ]
    assert film_notes(cine, ["sr"], 2, 3) == [
        "The film ends after 2 of the 3 frames that it claims.",
        "No DICOM structured report: it could not refer to the frames of a film that ends early.",
    ]
    video = VideoSource(tmp_path / "a.mp4", "a.mp4", ReadOptions())
    assert film_notes(video, ["sr", "sc", "seg"], 3, 3) == []
    assert film_notes(video, ["sr"], 2, 3) == ["The film ends after 2 of the 3 frames that it claims."]


def test_a_report_that_cannot_be_written_quotes_no_header(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantoms.make_series(tmp_path / "in", count=2, size=(32, 40))
    result = scored(tmp_path / "in")
    assert isinstance(result.source, DicomSource)
    series = result.source.series

    def report() -> str:
        with pytest.raises(ValueError, match="could not be written") as caught:
            write_series_report(tmp_path, "r", series, result.findings, 0.5, PROVENANCE)
        assert caught.value.__cause__ is caught.value.__context__ is None  # reasons of failures come from there
        return str(caught.value)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("could not convert string to float: 'ZEBRAFINCH'")

    with monkeypatch.context() as patch:
        patch.setattr("monai_anomalyclip.writers.dicom.structured_report.write_report", broken)
        assert report() == "These DICOM objects could not be written: sr (ValueError); the other files are there."
    del series.instances[0].header.SOPInstanceUID
    assert "sr (A file of the series has no SOPInstanceUID, so" in report()


def test_a_series_whose_files_have_no_uid_says_so(phantoms: ModuleType, tmp_path: Path) -> None:
    def edit(header: Dataset, index: int) -> None:
        del header.StudyInstanceUID

    phantoms.make_series(tmp_path / "in", count=2, size=(32, 40), edit=edit)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="could not be written") as caught:
        write(tmp_path / "out", scored(tmp_path / "in"), "nifti,seg,sr")
    assert "StudyInstanceUID" in str(caught.value)
    assert phantoms.CANARY not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert (tmp_path / "out" / "r_map.nii.gz").is_file()


def test_exact_maps_are_written_on_request_and_what_the_others_lose_is_said(tmp_path: Path) -> None:
    assert map_precision(["nifti", "png"]) == {
        "heat.png": "8 bits, off by at most 1/510",
        "map.nii.gz": "16 bits, off by at most 1/65536",
    }
    assert map_precision(["nifti", "png", "heat16", "map32"]) == {
        "heat.png": "16 bits, off by at most 1/131070",
        "map.nii.gz": "float32, nothing lost",
    }
    assert map_precision(["seg"]) == {}
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    for kinds, mode in (("png", "L"), ("png,heat16", "I;16"), ("heat16", "I;16")):
        (tmp_path / kinds).mkdir()
        names, _ = write(tmp_path / kinds, scored(tmp_path / "a.png"), kinds)
        assert names == ["r_heat.png", "r_mask.png", "r_overlay.jpg"]
        with Image.open(tmp_path / kinds / "r_heat.png") as picture:
            assert picture.mode == mode
