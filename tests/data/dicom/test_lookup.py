# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_voi_lut, convert_color_space
from pydicom.sequence import Sequence

from monai_anomalyclip.data.dicom import FrameReference, Instance
from monai_anomalyclip.data.dicom.attributes import is_inverted
from monai_anomalyclip.data.dicom.lookup import (
    VOI,
    LookupTable,
    find_voi,
    is_hounsfield,
    palette_tables,
    real_values,
    rescale,
    to_rgb,
)
from monai_anomalyclip.data.dicom.pixels import DecodedFrame, decode_frames
from monai_anomalyclip.data.errors import UnreadableInputError

STORED = np.random.default_rng(0).integers(-1024, 3000, (6, 8)).astype(np.int16)


def frame(header: Dataset | None = None, index: int = 0, **attributes: object) -> FrameReference:
    header = header or Dataset()
    header.PixelRepresentation = attributes.pop("PixelRepresentation", 1)
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return FrameReference(Instance(Path("none"), header, "1.2.840.10008.1.2.1"), index)


def lut(descriptor: list[int], data: list[int]) -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData, item.ModalityLUTType = descriptor, data, "OD"
    item["LUTData"].VR = "US"
    return Sequence([item])


def groups(keyword: str, **attributes: object) -> Dataset:
    inner, outer = Dataset(), Dataset()
    for name, value in attributes.items():
        setattr(inner, name, value)
    setattr(outer, keyword, Sequence([inner]))
    return outer


def test_rescale() -> None:
    assert rescale(frame(RescaleSlope="2.5", RescaleIntercept="-1024")) == (2.5, -1024)
    result = real_values(STORED, frame(RescaleSlope="2.5", RescaleIntercept="-1024"))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, STORED * 2.5 - 1024)
    np.testing.assert_array_equal(real_values(STORED, frame()), STORED)


def test_rescale_that_is_malformed_says_nothing(phantoms: ModuleType) -> None:
    damaged = frame(RescaleIntercept="-1024")
    phantoms.spoil(damaged.instance.header, "RescaleSlope")
    assert rescale(damaged) == (1, -1024)


@pytest.mark.parametrize("slope", ["0", "", None])
def test_rescale_that_says_nothing(slope: str | None) -> None:
    assert rescale(frame(RescaleSlope=slope, RescaleIntercept=slope)) == (1, 0)


def test_rescale_of_each_frame() -> None:
    header = Dataset()
    header.RescaleSlope = "99"
    header.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    keyword = "PixelValueTransformationSequence"
    header.PerFrameFunctionalGroupsSequence = Sequence(
        [groups(keyword, RescaleSlope=str(slope), RescaleIntercept="3", RescaleType="HU") for slope in (1.5, 2)]
    )
    assert [rescale(frame(header, index)) for index in (0, 1)] == [(1.5, 3), (2, 3)]
    assert is_hounsfield(frame(header, 1))


def test_modality_table_as_highdicom_applies_it() -> None:
    entries = np.random.default_rng(1).integers(0, 4000, 500)
    reference = hd.content.ModalityLUT(lut_type="OD", first_mapped_value=100, lut_data=entries.astype(np.uint16))
    stored = np.abs(STORED).astype(np.uint16)
    result = real_values(
        stored, frame(ModalityLUTSequence=lut([500, 100, 16], entries.tolist()), PixelRepresentation=0)
    )
    np.testing.assert_array_equal(result, reference.apply(stored))
    narrow = np.arange(200, dtype=np.uint8)[None]  # pydicom's own function fails on narrow types and long tables
    result = real_values(narrow, frame(ModalityLUTSequence=lut([500, 0, 16], entries.tolist())))
    np.testing.assert_array_equal(result[0], entries[:200])


@pytest.mark.parametrize(
    ("value", "limit", "first", "last"),
    [(-1024, None, -1024, -1024), (64_512, None, -1024, -1024), (500, -200, -200, 500), (-2000, -700, -2000, -700)],
)
def test_padding_becomes_nan(value: int, limit: int | None, first: int, last: int) -> None:
    stored = STORED.copy()
    stored[0, :3] = -1024
    header = Dataset()
    header.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    if limit is not None:
        header.add_new("PixelPaddingRangeLimit", "SS", limit)
    result = real_values(stored, frame(header, RescaleIntercept="-1000"))
    padded = (stored >= first) & (stored <= last)
    assert 0 < padded.sum() < padded.size
    np.testing.assert_array_equal(np.isnan(result), padded)
    np.testing.assert_allclose(result[~padded], stored[~padded] - 1000.0)


def test_values_that_are_not_finite() -> None:
    values = np.array([[1, np.nan, np.inf, -7]], np.float32)
    result = real_values(values, frame(FloatPixelPaddingValue=-7.0))
    np.testing.assert_array_equal(result, [[1, np.nan, np.nan, np.nan]])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"RescaleIntercept": "-1024", "RescaleSlope": "1"}, True),
        ({"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "HU"}, True),
        ({"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US"}, True),
        ({"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "Z_EFF"}, False),
        ({}, False),
        ({"ModalityLUTSequence": lut([2, 0, 16], [0, 1])}, False),
    ],
)
def test_hounsfield_units(attributes: dict[str, object], expected: bool) -> None:
    assert is_hounsfield(frame(**attributes)) is expected


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", None, False),
    ],
)
def test_inversion_once(photometric: str, shape: str | None, expected: bool) -> None:
    header = frame(PhotometricInterpretation=photometric).instance.header
    if shape:
        header.PresentationLUTShape = shape
    assert is_inverted(header) is expected


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("width", "level"), [(400, 40), (1500.5, -600.25), (2, 0)])
def test_windows_as_highdicom_applies_them(function: str, width: float, level: float) -> None:
    voi = find_voi(frame(WindowWidth=str(width), WindowCenter=str(level), VOILUTFunction=function))
    assert voi == VOI(width, level, function)
    values = STORED.astype(np.float32)
    values[0, 0] = np.nan
    with np.errstate(over="ignore"):
        expected = hd.pixels.apply_voi_window(values.astype(np.float64), level, width, function)
    result = voi.apply_(values)
    assert result is values
    np.testing.assert_allclose(result, expected, atol=2e-6)
    assert (voi.limits is None) == (function == "SIGMOID")


@pytest.mark.parametrize(
    ("centres", "widths", "expected"),
    [
        ("40", "400", (40, 400)),
        (["40", "-600"], ["400", "1500"], (40, 400)),
        (["40", "-600"], ["0", "1500"], (-600, 1500)),
        (["40", "-600"], ["0.5", "1500"], (-600, 1500)),
        (["40", "-600"], ["", "1500"], (-600, 1500)),
        (["40", "-600"], "400", (40, 400)),
        ("40", "1", (40, 1)),
        ("40", "0", None),
        ("40", "-400", None),
        ("40", None, None),
        (None, "400", None),
        ("", "", None),
    ],
)
def test_windows_that_scanners_write(centres: object, widths: object, expected: tuple[float, float] | None) -> None:
    voi = find_voi(frame(WindowCenter=centres, WindowWidth=widths))
    assert (voi and (voi.level, voi.width)) == expected


@pytest.mark.parametrize("text", [b"nan ", b"inf ", b"-inf", b"4O00", b"40,5"])
def test_windows_that_are_no_numbers(tmp_path: Path, text: bytes) -> None:
    header = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    header.WindowCenter, header.WindowWidth = "40", "7777"
    header.save_as(tmp_path / "w.dcm")
    (tmp_path / "w.dcm").write_bytes((tmp_path / "w.dcm").read_bytes().replace(b"7777", text))
    assert find_voi(frame(pydicom.dcmread(tmp_path / "w.dcm", stop_before_pixels=True))) is None


def test_sigmoid_and_exact_windows_may_be_narrow() -> None:
    for function in ("SIGMOID", "LINEAR_EXACT"):
        assert find_voi(frame(WindowCenter="0", WindowWidth="0.5", VOILUTFunction=function)) == VOI(0.5, 0, function)
    assert find_voi(frame(WindowCenter="0", WindowWidth="9", VOILUTFunction="")) == VOI(9, 0, "LINEAR")


def test_window_of_each_frame() -> None:
    header = Dataset()
    keyword = "FrameVOILUTSequence"
    header.PerFrameFunctionalGroupsSequence = Sequence(
        [groups(keyword, WindowCenter=str(level), WindowWidth="100") for level in (10, 20)]
    )
    found = [find_voi(frame(header, index)) for index in (0, 1)]
    assert found == [VOI(100, 10), VOI(100, 20)]


def test_voi_table_comes_before_windows() -> None:
    entries = np.linspace(0, 1023, 700).astype(int)
    header = Dataset()
    header.WindowCenter, header.WindowWidth = "40", "400"
    header.VOILUTSequence = lut([700, 2**16 - 300, 10], entries.tolist())
    source = frame(header, RescaleIntercept="-1024", RescaleSlope="1", PixelRepresentation=0)
    voi = find_voi(source)
    assert voi is not None
    values = (STORED + 0.25).astype(np.float32)
    values[1, 1] = np.nan
    expected = entries[np.clip(STORED + 300, 0, 699)] / 1023
    result = voi.apply_(values)
    assert np.isnan(result[1, 1])
    expected[1, 1] = np.nan
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert voi.limits is None


def test_voi_table_as_pydicom_applies_it() -> None:
    entries = np.linspace(0, 4095, 300).astype(int)
    source = frame(VOILUTSequence=lut([300, 20, 12], entries.tolist()), PixelRepresentation=0)
    stored = np.abs(STORED).astype(np.uint16)
    expected = apply_voi_lut(stored, source.instance.header)
    voi = find_voi(source)
    assert voi is not None
    np.testing.assert_allclose(voi.apply_(real_values(stored, source)), expected / 4095, atol=1e-6)


def colours(shape: tuple[int, ...] = (6, 8, 3)) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("space", ["YBR_FULL", "YBR_FULL_422"])
def test_colour_spaces(space: str) -> None:
    rgb = colours()
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    result = to_rgb(DecodedFrame(ybr, space), frame())
    assert np.abs(result.astype(int) - rgb).max() <= 2
    np.testing.assert_array_equal(to_rgb(DecodedFrame(rgb, "RGB"), frame()), rgb)


@pytest.mark.parametrize("bits", [10, 16])
def test_deep_colours_lose_their_lower_bits(bits: int) -> None:
    deep = colours().astype(np.uint16) << (bits - 8) | 3
    np.testing.assert_array_equal(to_rgb(DecodedFrame(deep, "RGB"), frame(BitsStored=bits)), colours())


@pytest.mark.parametrize("name", ["examples_palette.dcm"])
def test_palette_of_a_real_file(name: str) -> None:
    header = pydicom.dcmread(str(get_testdata_file(name)))
    expected = apply_color_lut(header.pixel_array, header) >> 8
    result = to_rgb(DecodedFrame(header.pixel_array, "PALETTE COLOR"), frame(header, PixelRepresentation=0))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("values", "space"),
    [(colours(), "YBR_PARTIAL_420"), (colours((6, 8)), "RGB"), (colours(), "HSV"), (colours(), "PALETTE COLOR")],
)
def test_other_colours_are_refused(values: np.ndarray, space: str) -> None:
    with pytest.raises(UnreadableInputError, match="supported as colours"):
        to_rgb(DecodedFrame(values, space), frame())


@pytest.mark.parametrize("read", [find_voi, real_values])
def test_damaged_tables(read: Callable[..., object]) -> None:
    source = frame(VOILUTSequence=lut([0, 0, 99], [1]), ModalityLUTSequence=lut([0, 0, 99], [1]))
    with pytest.raises(UnreadableInputError, match="lookup table"):
        read(*((STORED, source) if read is real_values else (source,)))


def test_ybr_422_equals_rgb(phantoms: ModuleType, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file("SC_ybr_full_422_uncompressed.dcm")))
    header = pydicom.dcmread(path, stop_before_pixels=True)
    source = FrameReference(Instance(path, header, str(header.file_meta.TransferSyntaxUID)))
    (decoded,) = decode_frames([source])
    reference = pydicom.dcmread(str(get_testdata_file("SC_rgb_rle.dcm"))).pixel_array  # the same picture
    difference = np.abs(to_rgb(decoded, source).astype(int) - reference)
    assert difference.max() <= 6  # bars that are exact in RGB only
    assert difference.mean() < 1


RNG = np.random.default_rng(0)
ENTRIES = RNG.integers(0, 4096, 300)


def item(descriptor: list[int], data: object, vr: str) -> Dataset:
    dataset = Dataset()
    dataset.LUTDescriptor = descriptor
    dataset.add_new("LUTData", vr, data)
    return dataset


def palette(descriptor: list[int], tables: list[bytes], segmented: bool = False) -> Dataset:
    header = Dataset()
    for colour, data in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
        setattr(header, f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData", data)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return header


@pytest.mark.parametrize(
    ("data", "vr", "little"),
    [
        (ENTRIES.tolist(), "US", True),
        (ENTRIES.astype("<u2").tobytes(), "OW", True),
        (ENTRIES.astype(">u2").tobytes(), "OW", False),
    ],
)
def test_words(data: object, vr: str, little: bool) -> None:
    table = LookupTable.from_item(item([300, 50, 12], data, vr), False, little)
    values = np.array([[0, 50, 51], [349, 350, 60_000]], dtype=np.uint16)
    np.testing.assert_array_equal(table(values), ENTRIES[[[0, 0, 1], [299, 299, 299]]])
    np.testing.assert_allclose(table.scaled(values.astype(np.float32)), table(values) / 4095)


def test_bytes() -> None:
    entries = np.arange(0, 250, 2, dtype=np.uint8)
    values = np.arange(130)
    expected = entries[np.clip(values, 0, 124)]
    padded = entries.tobytes() + b"\0"
    np.testing.assert_array_equal(LookupTable.from_item(item([125, 0, 8], padded, "OW"), False, True)(values), expected)
    wide = entries.astype("<u2").tobytes()
    np.testing.assert_array_equal(LookupTable.from_item(item([125, 0, 8], wide, "OW"), False, True)(values), expected)


def test_signs_and_65536_entries() -> None:
    table = LookupTable.from_item(item([0, 2**16 - 1000, 16], np.arange(2**16).tolist(), "US"), True, True)
    np.testing.assert_array_equal(table(np.array([-1001, -1000, 0, 32_767], np.int16)), [0, 0, 1000, 33_767])


def test_entries_deeper_than_declared_are_not_clipped() -> None:
    table = LookupTable.from_item(item([2, 0, 8], [0, 1023], "US"), False, True)
    np.testing.assert_array_equal(table.scaled(np.array([0, 1])), [0, 1])


@pytest.mark.parametrize(
    ("descriptor", "data"), [([300, 0], [1]), ([300, 0, 0], [1]), ([3, 0, 12], []), ([300, 0, 17], [1])]
)
def test_damaged_lookup_tables(descriptor: list[int], data: list[int]) -> None:
    with pytest.raises(UnreadableInputError, match="lookup table"):
        LookupTable.from_item(item(descriptor, data, "US"), False, True)
    with pytest.raises(UnreadableInputError, match="lookup table"):
        LookupTable.from_item(Dataset(), False, True)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_as_pydicom_applies_them(bits: int) -> None:
    tables = [RNG.integers(0, 2**bits, 200).astype(f"<u{bits // 8}").tobytes() for _ in range(3)]
    header = palette([200, 10, bits], tables)
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = apply_color_lut(indices, header) >> (bits - 8)
    for channel, table in enumerate(palette_tables(header, False, True)):
        np.testing.assert_array_equal(table.as_bytes()[table.position(indices)], expected[..., channel])


def test_small_numbers_in_a_palette_of_16_bits_stay_visible() -> None:
    header = palette([3, 0, 16], [np.array([0, 128, 255], "<u2").tobytes()] * 3)
    assert palette_tables(header, False, True)[0].as_bytes().tolist() == [0, 128, 255]


def test_segmented_palettes_as_pydicom_expands_them() -> None:
    words = [0, 2, 100, 500, 1, 5, 60_000, 0, 1, 7, 1, 4, 7]
    header = palette([12, 0, 16], [np.array(words, "<u2").tobytes()] * 3, segmented=True)
    indices = np.arange(12, dtype=np.uint8)[None]
    expected = apply_color_lut(indices, header)[0, :, 0]
    table = palette_tables(header, False, True)[0]
    np.testing.assert_array_equal(table.entries, expected)


def test_segments_do_not_explode() -> None:
    words = [0, 1, 5, *[1, 65_535, 9] * 1000]
    header = palette([0, 0, 16], [np.array(words, "<u2").tobytes()] * 3, segmented=True)
    assert len(palette_tables(header, False, True)[0].entries) == 2**16
    indirect = palette([9, 0, 16], [np.array([0, 1, 5, 2, 1, 0, 0], "<u2").tobytes()] * 3, segmented=True)
    with pytest.raises(UnreadableInputError, match="unsupported kind"):
        palette_tables(indirect, False, True)
    with pytest.raises(UnreadableInputError, match="lookup table"):
        palette_tables(Dataset(), False, True)
