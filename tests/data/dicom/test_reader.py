# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
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
from monai.data import DataLoader, Dataset, MetaTensor
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from monai_anomalyclip.data.dicom import DicomSeries, FrameReference, StackGeometry, group_instances, scan_files
from monai_anomalyclip.data.dicom.reader import load_series
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.transforms import ScaleIntensityForCLIPd

JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"


def series_of(*paths: Path) -> list[DicomSeries]:
    stacks, skipped = group_instances(scan_files(paths).instances)
    assert skipped == []
    return stacks


def load(paths: Path | Iterable[Path], **options: Any) -> MetaTensor:
    (series,) = series_of(*([paths] if isinstance(paths, Path) else paths))
    return load_series(series, **options)


def record(image: MetaTensor) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(image.meta["intensity"])
    return found


def points_of(image: MetaTensor) -> np.ndarray:
    """(X, Y, Z, 3) mm in LPS of the voxels, by the image's affine."""
    indices = np.stack(np.meshgrid(*map(np.arange, image.shape[1:]), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(image.affine.numpy(), indices) * [-1, -1, 1]


def expect_phantom(image: MetaTensor, truth: np.ndarray, tolerance: float = 0.03) -> None:
    """The phantom's values between the limits that are recorded, and that these are its percentiles."""
    low, high = record(image)["low"], record(image)["high"]
    expected = np.clip((truth - low) / (high - low), 0, 1)
    np.testing.assert_allclose(image[0].numpy(), expected, atol=tolerance / abs(high - low) + 1e-5)


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal", "oblique"])
@pytest.mark.parametrize("options", [{}, {"instance_numbers": "reversed"}, {"enhanced": True}])
def test_every_voxel_is_where_its_value_says(
    tmp_path: Path, phantoms: ModuleType, orientation: str, options: dict[str, Any]
) -> None:
    paths = phantoms.make_series(tmp_path, orientation=orientation, **options)
    image = load(paths, preset="percentile")
    assert image.shape == (1, 20, 16, 6)
    assert image.dtype == torch.float32
    assert image.affine.dtype == torch.float64
    truth = phantoms.value_at(points_of(image))
    expect_phantom(image, truth)
    foreground = truth[truth > truth.min()]
    found = [record(image)["low"], record(image)["high"]]
    np.testing.assert_allclose(found, np.percentile(foreground, [0.5, 99.5]), atol=0.1)
    assert image.meta["kind"] == "volume"
    assert image.meta["modality"] == "CT"
    assert image.meta["native_slices"] == 1
    np.testing.assert_array_equal(image.meta["spatial_shape"], [20, 16, 6])
    np.testing.assert_array_equal(image.meta["original_affine"], image.affine)


@pytest.mark.parametrize(
    "options",
    [
        {"transfer_syntax": "1.2.840.10008.1.2.2"},
        {"transfer_syntax": "1.2.840.10008.1.2.1.99"},
        {"transfer_syntax": RLE, "bits_stored": 12},
        {"transfer_syntax": JPEG_LS, "signed": False, "bits_stored": 12},
        {"modality": "PT", "slope": [0.02, 0.03, 0.025, 0.05, 0.021, 0.04], "signed": False},
        {"modality": "MR", "photometric": "MONOCHROME1", "enhanced": True},
    ],
)
def test_encodings_do_not_change_the_values(tmp_path: Path, phantoms: ModuleType, options: dict[str, Any]) -> None:
    image = load(phantoms.make_series(tmp_path, **options), preset="percentile")
    expect_phantom(image, phantoms.value_at(points_of(image)), tolerance=0.06)


def test_legacy_converted_series(tmp_path: Path, phantoms: ModuleType) -> None:
    image = load(phantoms.make_legacy_enhanced(tmp_path), preset="percentile")
    expect_phantom(image, phantoms.value_at(points_of(image)))


@pytest.mark.parametrize(
    "flaw", [{"gap": (2,)}, {"tilt": 15.0}, {"offsets": (0, 3, 7, 8)}, {"tilt": 15.0, "gap": (1,)}]
)
def test_stacks_without_a_true_affine(tmp_path: Path, phantoms: ModuleType, flaw: dict[str, Any]) -> None:
    (series,) = series_of(*phantoms.make_series(tmp_path, orientation="oblique", **flaw))
    assert series.geometry.affine() is None
    image = load_series(series, preset="percentile")
    positions = series.geometry.positions
    assert positions is not None
    for index, position in enumerate(positions):
        header = series.frames[index].instance.header
        slices = phantoms.value_at(phantoms.slice_points(header, series.geometry.orientation, position))
        low, high = record(image)["low"], record(image)["high"]
        expected = np.clip((slices.T - low) / (high - low), 0, 1)
        np.testing.assert_allclose(image[0, ..., index], expected, atol=1e-3)
    # in the plane the nominal affine is true, and the slices go the right way
    corner = image.affine.numpy() @ [19, 15, 0, 1]
    across, down = np.reshape(series.geometry.orientation, (2, 3))
    truth = positions[0] + 19 * 0.5 * across + 15 * 0.8 * down
    np.testing.assert_allclose(corner[:3] * [-1, -1, 1], truth, atol=1e-6)
    step = image.affine.numpy()[:3, 2] * [-1, -1, 1]
    assert step @ (positions[-1] - positions[0]) > 0


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("preset", ["auto", "percentile", "dicom"])
@pytest.mark.parametrize("modality", ["MR", "DX"])
def test_monochrome1_gives_what_monochrome2_gives(
    tmp_path: Path, phantoms: ModuleType, signed: bool, preset: str, modality: str
) -> None:
    results = []
    for photometric in ("MONOCHROME2", "MONOCHROME1"):

        def edit(header: pydicom.Dataset, index: int, photometric: str = photometric) -> None:
            upside_down = photometric == "MONOCHROME1"
            header.RescaleSlope, header.RescaleIntercept = "1", "0"
            middle = -0.5 if signed else 2047.5
            centre = middle - 300 if upside_down else middle + 300
            header.WindowCenter, header.WindowWidth = str(centre + 0.5), "901"
            header.PresentationLUTShape = "INVERSE" if upside_down else "IDENTITY"

        paths = phantoms.make_series(
            tmp_path / photometric,
            modality=modality,
            photometric=photometric,
            inverted=photometric == "MONOCHROME1",
            signed=signed,
            bits_stored=12,
            edit=edit,
        )
        results.append(load(paths, preset=preset))
    np.testing.assert_allclose(results[0], results[1], atol=2e-6)
    assert len(torch.unique(results[0].as_tensor())) > 20
    first, second = record(results[0]), record(results[1])
    assert first["preset"] == second["preset"]
    assert first["low"] < first["high"]
    assert second["low"] > second["high"]  # the value that became black is the larger one


@pytest.mark.parametrize("name", ["ct-brain", "ct-lung"])
def test_windows_against_simpleitk(tmp_path: Path, phantoms: ModuleType, name: str) -> None:
    def edit(header: pydicom.Dataset, index: int) -> None:
        header.BodyPartExamined = "HEAD"

    paths = phantoms.make_series(tmp_path, edit=edit, origin=(-12, -9, -3))
    image = load(paths, preset=name if name == "ct-lung" else "auto")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    hounsfield = sitk.GetArrayFromImage(sitk.ReadImage(files)).transpose(2, 1, 0)
    # PS3.3 C.11.2.1.2.1 for 80/40 and 1500/-600
    low, high = (0, 79) if name == "ct-brain" else (-1350, 149)
    assert (record(image)["preset"], record(image)["low"], record(image)["high"]) == (name, low, high)
    np.testing.assert_allclose(image[0], np.clip((hounsfield - low) / (high - low), 0, 1), atol=1e-5)


def test_windows_of_the_file_for_each_slice(tmp_path: Path, phantoms: ModuleType) -> None:
    def edit(header: pydicom.Dataset, index: int) -> None:
        header.WindowCenter, header.WindowWidth = [str(30 + 5 * index), "9"], ["60", "1"]

    paths = phantoms.make_series(tmp_path, edit=edit)
    image = load(paths, preset="dicom")
    for index, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        seen = hd.pixels.apply_voi_window(apply_modality_lut(dataset.pixel_array, dataset), 30 + 5 * index, 60)
        np.testing.assert_allclose(image[0, ..., index].T, seen, atol=1e-5)
    assert record(image)["preset"] == "dicom"
    assert record(image)["low"] is None
    with pytest.raises(UnreadableInputError, match="needs a usable window"):
        load(phantoms.make_series(tmp_path / "bare"), preset="dicom")


def test_padding_is_black_and_does_not_count(tmp_path: Path, phantoms: ModuleType) -> None:
    plain = load(phantoms.make_series(tmp_path / "plain", modality="MR", size=(17, 20), origin=(-12.5, -10.05, -7.75)))
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        paths = phantoms.make_series(
            tmp_path / photometric, modality="MR", padding=-32768, photometric=photometric, slope=0.05, size=(17, 20)
        )
        image = load(paths)
        assert (image[0, :, 0] == 0).all()
        assert abs(record(image)["low"]) < 200
        assert image[0, :, 1:].max() == 1
    assert plain.min() == 0
    empty = phantoms.make_series(tmp_path / "empty", modality="MR", padding=-32768, slope=0.05, size=(1, 20))
    image = load(empty)
    assert (image == 0).all()
    assert "constant" in record(image)["warnings"][0]


def test_constant_images(tmp_path: Path, phantoms: ModuleType) -> None:
    def edit(header: pydicom.Dataset, index: int) -> None:
        header.PixelData = bytes(len(header.PixelData))

    for modality, warning in (("MR", "constant"), ("CT", "one side of the window")):
        image = load(phantoms.make_series(tmp_path / modality, modality=modality, edit=edit, intercept=-500, slope=0.1))
        assert (image == 0).all()
        assert warning in record(image)["warnings"][-1]


def test_ct_without_hounsfield_units(tmp_path: Path, phantoms: ModuleType) -> None:
    def edit(header: pydicom.Dataset, index: int) -> None:
        del header.RescaleIntercept, header.RescaleSlope

    assert record(load(phantoms.make_series(tmp_path, edit=edit)))["preset"] == "percentile"


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colour_frames_and_volumes(tmp_path: Path, phantoms: ModuleType, photometric: str) -> None:
    (path,) = phantoms.make_series(
        tmp_path / "frame", count=1, photometric=photometric, modality="XC", positioned=False, transfer_syntax=RLE
    )
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array  # pydicom converts YBR_FULL
    if photometric == "PALETTE COLOR":
        expected = apply_color_lut(expected, dataset) >> 8
    frame = load(path)
    assert (frame.meta["kind"], frame.dtype, frame.shape) == ("frame", torch.uint8, (3, 16, 20))
    np.testing.assert_array_equal(frame.permute(1, 2, 0).as_tensor(), expected)
    torch.testing.assert_close(frame.affine, torch.eye(4, dtype=torch.float64))
    assert record(frame)["preset"] == "none"
    assert "does not apply" in record(load(path, preset="ct-brain"))["warnings"][0]

    paths = phantoms.make_series(tmp_path / "volume", photometric=photometric, modality="OT")
    (series,) = series_of(*paths)
    volume = load_series(series)
    assert (volume.shape, volume.dtype) == ((3, 20, 16, 6), torch.uint8)
    red = np.clip(np.round(128 + 2 * points_of(volume)[..., 0]), 0, 255)
    assert np.abs(volume[0].numpy() - red).max() <= 2


def test_gray_frame(tmp_path: Path, phantoms: ModuleType) -> None:
    (path,) = phantoms.make_series(tmp_path, count=1, modality="CR", positioned=False, signed=False, bits_stored=12)
    image = load(path)
    assert image.shape == (1, 16, 20)
    stored = pydicom.dcmread(path).pixel_array.astype(float)
    low, high = np.percentile(stored[stored > stored.min()], [0.5, 99.5])
    np.testing.assert_allclose(image[0], np.clip((stored - low) / (high - low), 0, 1), atol=1e-4)


@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2", "MONOCHROME1"])
def test_ultrasound_cine(tmp_path: Path, phantoms: ModuleType, photometric: str) -> None:
    path = phantoms.make_cine(tmp_path, photometric=photometric)
    pixels = pydicom.dcmread(path).pixel_array  # (5, 24, 32[, 3])
    image = load(path)
    part = load(path, start=1, stop=4)
    assert image.meta["kind"] == "cine"
    torch.testing.assert_close(part.as_tensor(), image.as_tensor()[..., 1:4])
    if photometric == "RGB":
        assert (image.shape, image.dtype) == ((3, 32, 24, 5), torch.uint8)
        np.testing.assert_array_equal(image.as_tensor(), pixels.transpose(3, 2, 1, 0))
        return
    expected = pixels.transpose(2, 1, 0) / 255
    np.testing.assert_allclose(image[0], expected if photometric == "MONOCHROME2" else 1 - expected, atol=1e-6)
    assert record(image)["preset"] == "none"


def deep_cine(tmp_path: Path, phantoms: ModuleType, count: int, photometric: str = "MONOCHROME2") -> Path:
    def edit(header: pydicom.Dataset) -> None:
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        time, row, column = np.meshgrid(*map(np.arange, (count, 24, 32)), indexing="ij")
        header.PixelData = (30 * time + 3 * row + column).astype("<u2").tobytes()

    return phantoms.make_cine(
        tmp_path,
        count=count,
        modality="XA",
        sop_class="1.2.840.10008.5.1.4.1.1.12.1",
        photometric=photometric,
        edit=edit,
    )


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_parts_of_a_deep_cine_agree(tmp_path: Path, phantoms: ModuleType, count: int, photometric: str) -> None:
    path = deep_cine(tmp_path, phantoms, count, photometric)
    stored = pydicom.dcmread(path).pixel_array.astype(float) * (1 if photometric == "MONOCHROME2" else -1)
    sample = stored[np.unique(np.linspace(0, count - 1, 16).round().astype(int))]
    low, high = np.percentile(sample[sample > sample.min()], [0.5, 99.5])
    expected = np.clip((stored - low) / (high - low), 0, 1).transpose(2, 1, 0)
    np.testing.assert_allclose(load(path)[0], expected, atol=1e-5)
    for start in range(0, count, 7):
        part = load(path, start=start, stop=min(start + 7, count))
        np.testing.assert_allclose(part[0], expected[..., start : start + 7], atol=1e-5)


def test_parts_that_do_not_exist(tmp_path: Path, phantoms: ModuleType) -> None:
    cine = phantoms.make_cine(tmp_path / "cine")
    volume = phantoms.make_series(tmp_path / "volume")
    for start, stop in ((0, 6), (3, 3), (-1, 2), (5, None)):
        with pytest.raises(ValueError, match=r"within 0\.\.5, got"):
            load(cine, start=start, stop=stop)
    with pytest.raises(ValueError, match="of a volume"):
        load(volume, start=1)
    with pytest.raises(ValueError, match="no intensity preset 'brain'"):
        load(volume, preset="brain")


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, phantoms: ModuleType) -> None:
    paths = phantoms.make_series(tmp_path)
    assert load(paths, max_bytes=6 * 16 * 20 * 4).shape == (1, 20, 16, 6)
    with pytest.raises(UnreadableInputError, match=r"6 frames of 16 x 20 pixels takes 7,680 bytes, more than .* 7,679"):
        load(paths, max_bytes=6 * 16 * 20 * 4 - 1)
    (series,) = series_of(*paths)
    huge = replace(series, frames=series.frames * 10**6)
    tracemalloc.start()
    with pytest.raises(UnreadableInputError, match="more than the allowed"):
        load_series(huge)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_memory_is_one_volume_and_little_more(tmp_path: Path, phantoms: ModuleType) -> None:
    paths = phantoms.make_series(tmp_path, count=24, size=(256, 256), pixel_spacing=(0.1, 0.1))
    (series,) = series_of(*paths)
    volume = 24 * 256 * 256 * 4
    for preset, limit in (("ct-soft", 1.5), ("percentile", 4)):  # below 16 million voxels the foreground is copied
        tracemalloc.start()
        load_series(series, preset=preset)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit * volume


def test_frames_that_differ_are_refused(tmp_path: Path, phantoms: ModuleType) -> None:
    (one,) = series_of(*phantoms.make_series(tmp_path / "a", modality="MR"))
    (other,) = series_of(*phantoms.make_series(tmp_path / "b", modality="MR", size=(20, 20), seed="b"))
    (colour,) = series_of(*phantoms.make_series(tmp_path / "c", modality="OT", photometric="RGB", seed="c"))
    for strange, words in (
        (other, r"frame 3 .* has the size \(20, 20\), the first one \(16, 20\)"),
        (colour, "in colour"),
    ):
        mixed = replace(one, frames=(*one.frames[:2], strange.frames[0]))
        with pytest.raises(UnreadableInputError, match=words):
            load_series(mixed)


def test_damage_in_one_frame_is_named_by_its_number(tmp_path: Path, phantoms: ModuleType) -> None:
    paths = phantoms.make_series(tmp_path)
    (series,) = series_of(*paths)
    third = series.frames[2].instance.path
    third.write_bytes(third.read_bytes()[:-50])
    with pytest.raises(
        UnreadableInputError, match="Cannot read frame 3 of a DICOM series: its pixel data are truncated"
    ):
        load_series(series)


def test_damaged_headers_are_one_clear_error(tmp_path: Path, phantoms: ModuleType) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [0, 0, 99], [1, 2]
    table["LUTData"].VR = "US"
    for keyword, words in (("ModalityLUTSequence", "frame 1"), ("VOILUTSequence", "the header")):

        def edit(header: pydicom.Dataset, index: int, keyword: str = keyword) -> None:
            setattr(header, keyword, [table])

        paths = phantoms.make_series(tmp_path / keyword, modality="DX", edit=edit)
        with pytest.raises(UnreadableInputError, match=f"Cannot read {words} of a DICOM series: a lookup table"):
            load(paths)


def test_ultrasound_in_gray_is_a_picture(tmp_path: Path, phantoms: ModuleType) -> None:
    def edit(header: pydicom.Dataset, index: int) -> None:
        del header.RescaleSlope, header.RescaleIntercept

    options = {"count": 1, "positioned": False, "signed": False, "bits_stored": 8, "edit": edit}
    for modality, preset in (("US", "none"), ("MR", "percentile")):
        (path,) = phantoms.make_series(tmp_path / modality, modality=modality, **options)
        image = load(path)
        assert record(image)["preset"] == preset
        if preset == "none":
            np.testing.assert_allclose(image[0], pydicom.dcmread(path).pixel_array / 255, atol=1e-6)
            assert record(load(path, preset="percentile"))["preset"] == "percentile"


@pytest.mark.parametrize("kind", ["volume", "cine", "frame"])
def test_metadata_can_be_collated_and_tell_nothing(tmp_path: Path, phantoms: ModuleType, kind: str) -> None:
    if kind == "cine":
        paths = [phantoms.make_cine(tmp_path)]
    else:
        paths = phantoms.make_series(tmp_path, positioned=kind == "volume", count=6 if kind == "volume" else 1)
    image = load(paths)
    text = repr(dict(image.meta))
    header = pydicom.dcmread(paths[0])
    secrets = ["CANARY", "19500607", str(tmp_path), paths[0].name, header.SOPInstanceUID, header.SeriesInstanceUID]
    assert not [secret for secret in secrets if secret in text]
    items = [{"image": image}, {"image": image}]
    batch = next(iter(DataLoader(Dataset(items, ScaleIntensityForCLIPd("image")), batch_size=2)))["image"]
    assert batch.shape == (2, *image.shape)
    assert batch.meta["kind"] == [kind, kind]
    assert json.loads(batch.meta["intensity"][1]) == record(image)
    assert batch.affine.shape == (2, 4, 4)
    assert batch.max() <= 1


def test_scaled_volumes_are_not_scaled_again(tmp_path: Path, phantoms: ModuleType) -> None:
    image = load(phantoms.make_series(tmp_path))
    again = ScaleIntensityForCLIPd("image")({"image": image})["image"]
    torch.testing.assert_close(again.as_tensor(), image.as_tensor(), rtol=0, atol=0)
    assert again.meta["intensity"] == image.meta["intensity"]


def test_notes_of_the_series_are_kept(tmp_path: Path, phantoms: ModuleType) -> None:
    (series,) = series_of(*phantoms.make_series(tmp_path))
    assert load_series(replace(series, notes=("One.", "Two."))).meta["notes"] == "One. Two."


def test_series_built_by_hand_without_geometry(tmp_path: Path, phantoms: ModuleType) -> None:
    (series,) = series_of(*phantoms.make_series(tmp_path))
    bare = replace(series, geometry=StackGeometry())
    assert isinstance(bare.frames[0], FrameReference)
    np.testing.assert_array_equal(load_series(bare).affine, np.diag([-1.0, -1, 1, 1]))


REAL: dict[str, Callable[[MetaTensor], bool]] = {
    "CT": lambda image: record(image)["preset"] in ("ct-soft", "ct-brain", "dicom"),
    "MR": lambda image: record(image)["preset"] in ("percentile", "none"),
    "US": lambda image: record(image)["preset"] == "none",
    "CR": lambda image: record(image)["preset"] == "dicom",
}


@pytest.mark.parametrize("folder", ["cornerstone_wado", "pydicom_data", "dcm_qa/agfa", "dcm_qa/ct_ge_tilt"])
def test_real_series_load(real_data: Path, folder: str) -> None:
    """All of them, including those in which a file of each transfer syntax stands for one slice."""
    stacks = series_of(real_data / "dicom" / folder)
    assert len(stacks) == {"cornerstone_wado": 7, "pydicom_data": 10, "dcm_qa/agfa": 8, "dcm_qa/ct_ge_tilt": 1}[folder]
    for series in stacks:
        image = load_series(series)
        assert image.isfinite().all()
        assert image.max() > 0
        assert REAL.get(series.modality, lambda _: True)(image)
        assert series.series_uid not in str(image.meta)


def test_real_radiograph_as_pydicom_shows_it(real_data: Path) -> None:
    path = real_data / "dicom" / "pydicom_data" / "RG3_J2KR.dcm"
    dataset = pydicom.dcmread(path)
    seen = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    expected = 1 - seen / (2**dataset.BitsStored - 1)  # MONOCHROME1
    np.testing.assert_allclose(load(path)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "generic/anatomical",
        "generic/compressed",
        "generic/compressed_j2k",
        "generic/compressed_jpeg",
        "generic/compressed_jpegls",
        "generic/compressed_rle",
        "hitachi/anatomical",
        "philips_enhanced/anatomical",
    ],
)
def test_real_series_against_their_nifti(real_data: Path, name: str) -> None:
    folder = real_data / "dicom" / "dicom2nifti" / name
    image = load(sorted(path for path in (folder / "001").iterdir()), preset="percentile")
    reference = nib.load(folder / "001_ground_truth.nii.gz")
    low, high = record(image)["low"], record(image)["high"]
    expected = np.clip((reference.get_fdata().squeeze() - low) / (high - low), 0, 1)
    # dicom2nifti flips axes; the position in mm tells which voxel is which
    moved = np.linalg.inv(reference.affine) @ image.affine.numpy()
    indices = np.stack(np.meshgrid(*map(np.arange, image.shape[1:]), indexing="ij"), axis=-1)
    places = nib.affines.apply_affine(moved, indices)
    assert np.abs(places - places.round()).max() < 0.02
    found = expected[tuple(places.round().astype(int).transpose(3, 0, 1, 2))]
    np.testing.assert_allclose(image[0], found, atol=2e-3)
