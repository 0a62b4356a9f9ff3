# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import av
import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset

LOW, HIGH = -160, 239
"""What becomes black and white by the window 400/40 (DICOM PS3.3 equation C.11-1)."""

BRIGHT = 1000
"""Value of the planted cube; the phantom itself stays far below."""

ORIGIN = np.array([-12.5, -9.25, -7.75])  # of the first slice
SCALE: dict[str, Any] = {"slope": 0.04, "intercept": 0}

CASES: dict[str, dict[str, Any]] = {
    "regular": {},
    "reversed": {"instance_numbers": "reversed"},
    "no numbers": {"instance_numbers": "absent"},
    "oblique": {"orientation": "oblique"},
    "sagittal": {"orientation": "sagittal"},
    "coronal": {"orientation": "coronal", "modality": "MR"},
    "gap": {"count": 8, "gap": [5, 6]},
    "duplicate": {"duplicate": [2]},
    "tilt": {"tilt": 20.0},
    "irregular": {"offsets": [0, 3, 6, 10.5, 12, 16]},
    "enhanced": {"enhanced": True},
    "enhanced oblique": {"enhanced": True, "orientation": "oblique", "modality": "MR"},
    "single": {"count": 1, "origin": (-12.5, -9.25, -4.75)},
    "big endian": {"transfer_syntax": "1.2.840.10008.1.2.2"},
    "RLE": {"transfer_syntax": "1.2.840.10008.1.2.5"},
    "flat": {},
    "flat too": {},
}
ECHOES = ("echo 10", "echo 80")
ALL = (*CASES, *ECHOES)

VERDICTS = {
    "gap": "gaps",
    "duplicate": "duplicate positions",
    "tilt": "gantry tilt",
    "irregular": "irregular spacing",
    "single": "single slice",
}
"""Of the cases that are no regular volume."""

NO_NIFTI = ("gap", "duplicate", "irregular")
UNEVEN = ("duplicate", "tilt", "irregular")
"""Stacks that dcmqi, which knows volumes alone, cannot place."""

KNOWN = re.compile("Laterality")


class Found(NamedTuple):
    """What a run wrote for a series, and where the series lies by its own files."""

    files: dict[str, Path]
    record: dict[str, Any]
    source: dict[str, Any]  # identity of a frame: its voxels, in the order of the files

    def expected(self) -> np.ndarray:
        return np.concatenate([voxels.where(voxels.values > 500) for voxels in self.source.values()])


def plant(header: Dataset, _: int) -> None:
    """Set a box to `BRIGHT`: columns 8 to 12, rows 3 to 9, the slices within 1.5 to 8 mm of the first."""
    count = int(header.get("NumberOfFrames", 1))
    pixels = np.frombuffer(header.PixelData, "<i2").reshape(count, header.Rows, header.Columns).copy()
    for index, frame in enumerate(pixels):
        place, rescale = header, header
        if count > 1:
            groups = header.PerFrameFunctionalGroupsSequence[index]
            place, rescale = groups.PlanePositionSequence[0], groups.PixelValueTransformationSequence[0]
            cosines = header.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
        else:
            cosines = header.ImageOrientationPatient
        offset = np.array(place.ImagePositionPatient, float) - ORIGIN
        along = offset @ np.cross(*np.array(cosines, float).reshape(2, 3))
        if 1.5 < along < 8:
            frame[3:10, 8:13] = round((BRIGHT - float(rescale.RescaleIntercept)) / float(rescale.RescaleSlope))
    header.PixelData = pixels.tobytes()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> Path:
    """Studies of all kinds in folders that say nothing, with what lies about beside them."""
    folder = tmp_path_factory.mktemp("studies")

    for place, (name, options) in enumerate(CASES.items()):
        where = folder / ("flat" if name.startswith("flat") else f"study{place % 3}/{place}")
        phantoms.make_series(where, seed=name, edit=plant, **SCALE, **options)
    phantoms.make_series(folder / "echoes", seed="echoes", modality="MR", echoes=[10, 80], edit=plant, **SCALE)
    phantoms.make_series(folder / "flat", seed="localizer", localizer=True, count=2, orientation="coronal")
    phantoms.make_series(folder / "flat", seed="capture", count=1, modality="OT", photometric="RGB", positioned=False)
    phantoms.make_object(folder / "flat", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", seed="segmentation")
    phantoms.make_object(folder / "study0", "1.2.840.10008.5.1.4.1.1.88.33", "SR", seed="report")
    (folder / "flat" / "readme.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def found(
    tree: Path, places: ModuleType, predict: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Found]:
    """What one run over the whole tree wrote, by case."""
    output = tmp_path_factory.mktemp("results") / "out"
    options = ("--preset", "ct-soft", "--threshold", "0.9", "--sheared-nifti", "--outputs", "default,pm,sc")
    assert predict(tree, output, *options) == 0

    frames: dict[tuple[str, str], dict[str, Any]] = {}
    series = {str(phantoms_uid(tree, name)): name for name in (*CASES, "echoes")}
    for path in sorted(tree.rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if (name := series.get(header.SeriesInstanceUID)) is not None:
            key = f"echo {header.EchoTime:g}" if name == "echoes" else name
            frames.setdefault(key, {}).update(places.of_dicom(path))

    records = {record["name"]: record for record in json.loads((output / "results.json").read_text())["inputs"]}
    result = {}
    for path in sorted(output.glob("*_seg.dcm")):
        name = path.name.removesuffix("_seg.dcm")
        images = referenced(pydicom.dcmread(path))
        (key,) = (key for key in frames if images == set(frames[key]))
        files = {file.name.removeprefix(f"{name}_").partition(".")[0]: file for file in output.glob(f"{name}_*")}
        files = {("nifti " if file.name.endswith(".gz") else "") + kind: file for kind, file in files.items()}
        result[key] = Found(files, records[name], frames[key])
    assert len(records) == len(result)
    return result


def phantoms_uid(tree: Path, name: str) -> str:
    """Series UID of a case, from the first of its files."""
    return str(
        pydicom.dcmread(next(tree.rglob(f"{name}00000.dcm")), specific_tags=["SeriesInstanceUID"])[0x20000E].value
    )


def referenced(result: Dataset) -> set[str]:
    """The frames, by identity, that the frames of an object were derived from."""
    sources = [
        item.DerivationImageSequence[0].SourceImageSequence[0] for item in result.PerFrameFunctionalGroupsSequence
    ]
    return {f"{source.ReferencedSOPInstanceUID}/{source.get('ReferencedFrameNumber', 1)}" for source in sources}


def shown(places: np.ndarray, phantoms: ModuleType) -> np.ndarray:
    """What the window makes of the phantom at some places."""
    return np.clip((phantoms.value_at(places) - LOW) / (HIGH - LOW), 0, 1)


def assert_map(voxels: Any, expected: np.ndarray, places: ModuleType, phantoms: ModuleType, tolerance: float) -> None:
    """White where the cube was planted, and everywhere else the phantom's value at this place in mm."""
    cube = voxels.values > 0.99
    assert places.distance(voxels.where(cube), expected) < tolerance
    difference = np.abs(voxels.values - shown(voxels.places, phantoms))[~cube]
    assert difference.max() < 1e-3


def test_every_case_is_found_and_judged(found: dict[str, Found], tree: Path, predict: Callable[..., int]) -> None:
    assert set(found) == set(ALL)
    for name, case in found.items():
        verdict = case.record["geometry"]["verdict"]
        assert (name, verdict) == (name, VERDICTS.get(name, "regular"))
        assert case.record["frames"] == len(case.source)
    assert found["tilt"].record["geometry"]["tilt_degrees"] == pytest.approx(20)
    assert found["gap"].record["geometry"]["missing_slices"] == 2
    document = json.loads((next(iter(found.values())).files["seg"].parent / "results.json").read_text())
    assert document["skipped"] == {
        "localizer series": 1, "not DICOM": 1, "secondary capture series": 1, "segmentation": 1, "structured report": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_cube_in_the_segmentation(found: dict[str, Found], places: ModuleType, name: str) -> None:
    case = found[name]
    expected = case.expected()
    assert len(expected) == 35 * (1 if name == "single" else 3 if name == "duplicate" else 2)
    frames = places.of_segmentation(case.files["seg"])
    marked = np.concatenate([frame.where(frame.values == 1) for frame in frames])
    assert places.distance(marked, expected) < 1e-4
    every, of_source = (np.concatenate([frame.places for frame in some]) for some in (frames, case.source.values()))
    assert places.distance(every, of_source) < 1e-4


@pytest.mark.parametrize("name", ALL)
def test_marked_pixels_are_those_of_the_referenced_images(found: dict[str, Found], name: str) -> None:
    """By the references alone, as a viewer without geometry would do it."""
    case = found[name]
    result = pydicom.dcmread(case.files["seg"])
    pixels = result.pixel_array.reshape(-1, result.Rows, result.Columns)
    for item, frame in zip(result.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        identity = f"{source.ReferencedSOPInstanceUID}/{source.get('ReferencedFrameNumber', 1)}"
        np.testing.assert_array_equal(frame.ravel(), case.source[identity].values > 500)


@pytest.mark.parametrize("name", ALL)
def test_map_in_the_parametric_map(
    found: dict[str, Found], places: ModuleType, phantoms: ModuleType, name: str
) -> None:
    frames = places.of_parametric_map(found[name].files["pm"])
    voxels = places.Voxels(*(np.concatenate(parts) for parts in zip(*frames, strict=True)))
    assert_map(voxels, found[name].expected(), places, phantoms, 1e-4)


@pytest.mark.parametrize("name", [name for name in ALL if name not in UNEVEN])
def test_what_dcmqi_reads(
    found: dict[str, Found],
    places: ModuleType,
    phantoms: ModuleType,
    run_tool: Callable[..., str],
    tmp_path: Path,
    name: str,
) -> None:
    case = found[name]
    for tool, kind in (("segimage2itkimage", "seg"), ("paramap2itkimage", "pm")):
        run_tool(tool, "--inputDICOM", case.files[kind], "--outputDirectory", tmp_path, "--outputType", "nrrd")
    mask = places.of_itk(tmp_path / "1.nrrd")
    assert places.distance(mask.where(mask.values != 0), case.expected()) < 1e-3
    if name != "gap":  # for dcmqi the frames of a parametric map are neighbours, whatever their positions
        assert_map(places.of_itk(tmp_path / "pmap.nrrd"), case.expected(), places, phantoms, 1e-3)


@pytest.mark.parametrize("name", ALL)
def test_nifti_or_the_reason_why_there_is_none(
    found: dict[str, Found], places: ModuleType, phantoms: ModuleType, name: str
) -> None:
    case = found[name]
    if name in NO_NIFTI:
        assert "nifti map" not in case.files
        assert any("no regular volume" in warning for warning in case.record["warnings"])
        return
    readers = [places.of_nibabel] if name == "tilt" else [places.of_nibabel, places.of_itk]  # ITK takes no shears
    for read in readers:
        mask = read(case.files["nifti mask"])
        assert places.distance(mask.where(mask.values == 1), case.expected()) < 1e-3
        assert_map(read(case.files["nifti map"]), case.expected(), places, phantoms, 1e-3)


@pytest.mark.parametrize("name", ALL)
def test_report_names_the_slices_of_the_cube(
    found: dict[str, Found], run_tool: Callable[..., str], tmp_path: Path, name: str
) -> None:
    case = found[name]
    holding = {identity for identity, voxels in case.source.items() if voxels.values.max() > 500}
    _, *groups = hd.sr.srread(case.files["sr"]).content.get_image_measurement_groups()
    named = set()
    for group in groups:
        (measurement,) = group.get_measurements()
        if measurement.value > 0.99:
            (image,) = group.source_images
            number = (image.referenced_frame_numbers or [1])[0]
            named.add(f"{image.referenced_sop_instance_uid}/{number}")
    assert named == holding
    run_tool("tid1500reader", "--inputDICOM", case.files["sr"], "--outputMetadata", tmp_path / "sr.json")
    read = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    scores = [float(group["measurementItems"][0]["value"]) for group in read]
    assert scores[0] == pytest.approx(1)
    assert sum(score > 0.99 for score in scores[1:]) == len(holding)


@pytest.mark.parametrize("name", ALL)
def test_objects_are_valid(found: dict[str, Found], run_tool: Callable[..., str], name: str) -> None:
    for kind in ("seg", "pm", "sr", "sc"):
        report = run_tool("dciodvfy", "-new", found[name].files[kind])
        errors = [line for line in report.splitlines() if "Error" in line and not KNOWN.search(line)]
        assert not errors, report


@pytest.mark.parametrize("count", [1, 4])
def test_pixels_that_are_not_square_are_shown_as_they_are(
    count: int, predict: Callable[..., int], phantoms: ModuleType, tmp_path: Path
) -> None:
    """Pixel Aspect Ratio 3 to 1, the height first (PS3.3 C.7.6.3.1.7): 32 columns are shown as wide as 32 / 3 rows."""
    pages = []
    for name, ratio in (("square", [1, 1]), ("high", [3, 1])):

        def edit(header: Dataset, ratio: list[int] = ratio) -> None:
            header.PixelAspectRatio = ratio

        phantoms.make_cine(tmp_path / name, count=count, size=(24, 96), edit=edit)
        out = tmp_path / f"{name}.out"
        assert predict(tmp_path / name, out, "--outputs", "default,sc") == 0
        with Image.open(next(out.glob("*_worst.jpg" if count > 1 else "*_overlay.jpg"))) as page:
            pages.append(page.size)
    # Panels of 96 columns are drawn twice as large: 48 rows with square pixels, 144 with high ones.
    assert pages[1] == (pages[0][0], pages[0][1] + 96)
    if count > 1:
        with av.open(str(next(out.glob("*_overlay.mp4")))) as film:
            stream = film.streams.video[0]
            shape = stream.sample_aspect_ratio * stream.width / stream.height
            assert float(shape) == pytest.approx(96 / 24 / 3, rel=0.02)
    else:
        captured = pydicom.dcmread(next(out.glob("*_sc.dcm")))
        assert list(captured.PixelAspectRatio) == [3, 1]
        assert (captured.Rows, captured.Columns) == (24, 96)
