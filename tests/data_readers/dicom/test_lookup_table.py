# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from monai_anomalyclip.data.dicom.lookup_table import LookupTable, palette_tables
from monai_anomalyclip.data.errors import UnreadableInputError

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
def test_damaged_tables(descriptor: list[int], data: list[int]) -> None:
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
