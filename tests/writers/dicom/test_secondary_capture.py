# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom import Provenance, write_secondary_capture

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 33, 21, 3), (1, 7, 5, 3), (4, 33, 21, 3), (3, 7, 5, 3)])
def test_pictures(
    stacks: dict[str, DicomSeries], shape: tuple[int, ...], tmp_path: Path, provenance: Provenance
) -> None:
    pictures = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = write_secondary_capture(stacks["regular"], pictures, tmp_path / "sc.dcm", provenance=provenance)
    result = pydicom.dcmread(path)
    np.testing.assert_array_equal(result.pixel_array.reshape(shape), pictures)
    expected = "7.4" if shape[0] > 1 else "7"
    assert result.SOPClassUID == f"1.2.840.10008.5.1.4.1.1.{expected}"
    assert result.file_meta.MediaStorageSOPClassUID == result.SOPClassUID
    assert result.PhotometricInterpretation == "RGB"
    assert result.BurnedInAnnotation == "YES"
    assert result.SeriesDescription.endswith("(research)")
    assert "Research use only" in result.DerivationDescription
    sources = [item.ReferencedSOPInstanceUID for item in result.SourceImageSequence]
    assert sources == [instance.header.SOPInstanceUID for instance in stacks["regular"].instances]


def test_not_contiguous_pictures(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    pictures = RNG.integers(0, 256, (2, 3, 8, 6), dtype=np.uint8).transpose(0, 2, 3, 1)[:, ::-1]
    path = write_secondary_capture(stacks["regular"], pictures, tmp_path / "sc.dcm", provenance=provenance)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, pictures)


def test_time_of_a_cine_and_pages_of_a_stack(
    stacks: dict[str, DicomSeries], cine: DicomSeries, tmp_path: Path, provenance: Provenance
) -> None:
    def result_of(series: DicomSeries, n: int) -> pydicom.Dataset:
        path = tmp_path / "sc.dcm"
        pictures = np.zeros((n, 8, 8, 3), np.uint8)
        return pydicom.dcmread(write_secondary_capture(series, pictures, path, provenance=provenance, overwrite=True))

    timed = result_of(cine, 5)
    assert (timed.FrameTime, timed.FrameIncrementPointer) == (40, 0x00181063)
    odd = deepcopy(cine)
    odd.header.FrameTime = 100 / 3  # more digits than a decimal string takes
    assert abs(float(result_of(odd, 5).FrameTime) - 100 / 3) < 1e-9
    untimed = deepcopy(cine)
    untimed.header.FrameTime = "0"
    wrong = deepcopy(cine)
    wrong.header[0x00181063] = RawDataElement(Tag(0x00181063), "DS", 4, b"40ms", 0, False, True)  # as files hold it
    for series, n in ((stacks["regular"], 6), (cine, 3), (untimed, 5), (wrong, 5), (replace(cine, kind="frame"), 5)):
        paged = result_of(series, n)
        assert "FrameTime" not in paged
        assert paged.FrameIncrementPointer == 0x00182001
        assert list(paged.PageNumberVector) == list(range(1, n + 1))


def test_it_is_no_input(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    """Wherever it lies: neither by itself nor among the secondary captures that somebody asks for."""
    pictures = np.zeros((1, 8, 8, 3), np.uint8)
    write_secondary_capture(stacks["single"], pictures, tmp_path / "a.dcm", provenance=provenance)
    catalogue = InputCatalogue(tmp_path, include="secondary-capture", empty=True)
    assert (len(catalogue.sources), catalogue.left_out()) == (0, {"result of an earlier run series": 1})


def test_lossy_source(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    series = deepcopy(stacks["single"])
    pictures = np.zeros((1, 8, 8, 3), np.uint8)
    path = write_secondary_capture(series, pictures, tmp_path / "a.dcm", provenance=provenance)
    assert pydicom.dcmread(path).LossyImageCompression == "00"
    series.header.LossyImageCompression = "01"
    series.header.LossyImageCompressionMethod = "ISO_10918_1"
    result = pydicom.dcmread(write_secondary_capture(series, pictures, tmp_path / "b.dcm", provenance=provenance))
    assert (result.LossyImageCompression, result.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


@pytest.mark.parametrize(
    ("pictures", "match"),
    [
        (np.zeros((8, 8, 3), np.uint8), "Expected RGB pictures"),
        (np.zeros((1, 8, 8, 4), np.uint8), "Expected RGB pictures"),
        (np.zeros((1, 8, 8, 3), np.float32), "Expected RGB pictures"),
        (np.zeros((0, 8, 8, 3), np.uint8), "Expected RGB pictures"),
        (np.zeros((1, 1, 65536, 3), np.uint8), "at most 65535"),
    ],
)
def test_refused(
    stacks: dict[str, DicomSeries], pictures: np.ndarray, match: str, tmp_path: Path, provenance: Provenance
) -> None:
    with pytest.raises(ValueError, match=match):
        write_secondary_capture(stacks["single"], pictures, tmp_path / "sc.dcm", provenance=provenance)
    assert not list(tmp_path.iterdir())
