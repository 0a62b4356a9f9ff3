# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from monai_anomalyclip.data.dicom import Instance, SkippedFile, header
from monai_anomalyclip.data.dicom.header import (
    Allowance,
    BoundedStream,
    TooManyError,
    TooMuchError,
    inflate_beginning,
    read_header,
)

LONG = b"OB\0\0"


def code(path: Path) -> str | None:
    """Code of a skipped file; None for one that was read."""
    outcome = read_header(path)
    return outcome.code if isinstance(outcome, SkippedFile) else None


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in explicit little endian; `vr` of four bytes has a long length."""
    size = "<I" if len(vr) == 4 else "<H"
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + struct.pack(size, len(value)) + value


def spliced(path: Path, addition: bytes, before: int = 0x00280002) -> Path:
    """Put raw bytes in front of the element `before` (Samples per Pixel) of a file in explicit little endian."""
    data = path.read_bytes()
    mark = struct.pack("<HH", before >> 16, before & 0xFFFF)
    index = data.index(mark + b"US")
    path.write_bytes(data[:index] + addition + data[index:])
    return path


def one(phantoms: ModuleType, folder: Path, **options: object) -> Path:
    path: Path = phantoms.make_series(folder, count=1, **options)[0]
    return path


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_header_equals_pydicoms_in_every_transfer_syntax(
    phantoms: ModuleType, tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    path = one(phantoms, tmp_path, transfer_syntax=syntax, size=(32, 40))
    instance = read_header(path)
    assert isinstance(instance, Instance)
    assert instance.transfer_syntax == syntax
    assert instance.header == pydicom.dcmread(path, stop_before_pixels=True)
    assert instance.header.file_meta.TransferSyntaxUID == syntax
    assert instance.n_frames == 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_preamble_are_read(phantoms: ModuleType, tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    path = one(phantoms, tmp_path, transfer_syntax=syntax, preamble=False)
    assert path.read_bytes()[128:132] != b"DICM"
    instance = read_header(path)
    assert isinstance(instance, Instance)
    assert instance.transfer_syntax == syntax
    whole = pydicom.dcmread(one(phantoms, tmp_path / "whole", transfer_syntax=syntax))
    assert instance.header.ImagePositionPatient == whole.ImagePositionPatient


def test_compressed_pixels_of_a_file_that_does_not_say_how_are_refused(phantoms: ModuleType, tmp_path: Path) -> None:
    path = one(phantoms, tmp_path, transfer_syntax=RLELossless)
    data = path.read_bytes()
    start = 132 + 12 + struct.unpack("<I", data[140:144])[0]
    path.write_bytes(data[start:])
    outcome = read_header(path)
    assert isinstance(outcome, SkippedFile)
    assert (outcome.code, "does not say how" in outcome.detail) == ("damaged header", True)


def test_what_is_no_dicom_is_skipped_with_a_code(phantoms: ModuleType, tmp_path: Path) -> None:
    contents = {
        "empty": b"",
        "text": b"Patient: nobody\n" * 100,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "zeros": bytes(1000),
        "begins_alike": b"\x08\x00\x05\x00CS" + bytes(range(250)) * 4,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert code(tmp_path / name) == "not DICOM", name
    (tmp_path / "prefix only").write_bytes(bytes(128) + b"DICM" + bytes(range(256)) * 4)
    assert code(tmp_path / "prefix only") == "damaged header"
    assert code(tmp_path / "absent") == "unreadable"
    assert code(tmp_path) == "unreadable"
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    assert code(tmp_path / "pipe") == "unreadable"


def test_dicomdir_is_skipped_before_it_is_read(phantoms: ModuleType, tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    files = FileSet()
    files.add(one(phantoms, tmp_path / "source"))
    files.write(tmp_path / "set")
    assert code(tmp_path / "set" / "DICOMDIR") == "DICOMDIR"


def test_long_elements_are_dropped_without_being_read(phantoms: ModuleType, tmp_path: Path) -> None:
    path = one(phantoms, tmp_path)
    head = spliced(path, explicit(0x00261010, LONG, b"") + explicit(0x00261011, LONG, b"x" * 1000)).read_bytes()
    index = head.index(struct.pack("<HH", 0x0026, 0x1010)) + 8
    with path.open("wb") as file:  # 512 MiB that are nowhere on the disk
        file.write(head[:index] + struct.pack("<I", 512 * 2**20))
        file.seek(512 * 2**20, os.SEEK_CUR)
        file.write(head[index + 4 :])
    tracemalloc.start()
    instance = read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(instance, Instance)
    assert (0x0026, 0x1010) not in instance.header
    assert instance.header[0x0026, 0x1011].value == b"x" * 1000
    assert instance.header.Rows == 16
    assert peak < 2**20


def test_private_elements_are_dropped_unless_a_trait_reads_them(phantoms: ModuleType, tmp_path: Path) -> None:
    """Siemens writes two headers of some 50 KiB each into every file."""
    read = (
        (0x0019, "SIEMENS MR HEADER", 0x0C),
        (0x0019, "SIEMENS MR HEADER", 0x0E),
        (0x0019, "GEMS_ACQU_01", 0xBC),
        (0x0043, "GEMS_PARM_01", 0x39),
        (0x2001, "Philips Imaging DD 001", 0x03),
    )
    dropped = ((0x0029, "SIEMENS CSA HEADER", 0x10), (0x0019, "SIEMENS MR HEADER", 0x0D), (0x0051, "x", 0x39))

    def edit(image: Dataset, index: int) -> None:
        for group, creator, element in (*read, *dropped):
            image.private_block(group, creator, create=True).add_new(element, "OB", b"CSA " * 12_500)
        item = Dataset()
        item.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"x")
        image.RequestAttributesSequence = [item]
        image.PatientComments = "kept"

    path = one(phantoms, tmp_path, edit=edit)
    whole = pydicom.dcmread(path, stop_before_pixels=True)
    instance = read_header(path)
    assert isinstance(instance, Instance)
    for group, creator, element in read:
        assert instance.header.private_block(group, creator)[element].value == b"CSA " * 12_500
    for group, creator, element in dropped:
        assert whole.private_block(group, creator)[element].tag not in instance.header
    assert [element.tag for element in instance.header if not element.tag.is_private] == [
        element.tag for element in whole if not element.tag.is_private
    ]
    assert instance.header.RequestAttributesSequence == whole.RequestAttributesSequence


def test_palettes_and_long_sequences_are_kept_and_icons_dropped(phantoms: ModuleType, tmp_path: Path) -> None:
    table = np.arange(65536, dtype="<u2").tobytes()

    def edit(image: Dataset, index: int) -> None:
        item = Dataset()
        item.LUTDescriptor = [0, 0, 16]
        item.add_new("LUTData", "OW", table)
        image.ModalityLUTSequence = [item]
        image.RedPaletteColorLookupTableDescriptor = [0, 0, 16]
        image.RedPaletteColorLookupTableData = table
        icon = Dataset()
        icon.Rows = icon.Columns = icon.BitsAllocated = 8
        icon.PixelData = bytes(64)
        image.IconImageSequence = [icon]

    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        instance = read_header(one(phantoms, tmp_path, transfer_syntax=syntax, edit=edit))
        assert isinstance(instance, Instance)
        assert instance.header.ModalityLUTSequence[0].LUTData == table
        assert instance.header.RedPaletteColorLookupTableData == table
        assert "IconImageSequence" not in instance.header
        assert instance.header.Rows == 16


def nested(depth: int, defined: bool) -> bytes:
    """Content Sequences within each other."""
    inner = explicit(0x0040A160, b"UT\0\0", b"leaf")
    for _ in range(depth):
        if defined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = explicit(0x0040A730, b"SQ\0\0", item)
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            opening = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0" + struct.pack("<I", 0xFFFFFFFF)
            inner = opening + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return inner


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize(("depth", "expected"), [(20, None), (100, "damaged header"), (3000, "damaged header")])
def test_deep_nesting_is_refused(
    phantoms: ModuleType, tmp_path: Path, defined: bool, depth: int, expected: str | None
) -> None:
    path = spliced(one(phantoms, tmp_path), nested(depth, defined))
    assert code(path) == expected


def test_a_damaged_sequence_costs_the_sequence_and_not_the_image(phantoms: ModuleType, tmp_path: Path) -> None:
    path = spliced(one(phantoms, tmp_path), explicit(0x00189346, b"SQ\0\0", b"abcd"))
    instance = read_header(path)
    assert isinstance(instance, Instance)
    assert "CTDIPhantomTypeCodeSequence" not in instance.header
    assert instance.header.Rows == 16


def test_too_many_elements_are_refused(phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elements = b"".join(struct.pack("<HH", 0x0009, number) + b"CS\0\0" for number in range(0x1000, 0x3000))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(elements)) + elements
    in_sequence = spliced(one(phantoms, tmp_path / "a"), explicit(0x0040A730, b"SQ\0\0", item))
    plain = spliced(one(phantoms, tmp_path / "b"), elements)
    empty_items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 0x2000
    items = spliced(one(phantoms, tmp_path / "c"), explicit(0x0040A730, b"SQ\0\0", empty_items))
    assert [code(in_sequence), code(plain), code(items)] == [None] * 3
    monkeypatch.setattr(header, "_MAX_READS", 0x2000)
    for path in (in_sequence, plain, items):
        refused = read_header(path)
        assert isinstance(refused, SkippedFile)
        assert refused.code == "header too large"
        assert refused.detail == "The header has too many elements for a file of its size."


def test_many_frames_may_have_many_elements(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functional groups grow with the frames, as the pixels do, so the file's size tells how many there may be."""
    (path,) = phantoms.make_series(tmp_path, count=50, modality="MR", enhanced=True, size=(64, 64))
    monkeypatch.setattr(header, "_MAX_READS", 500)
    instance = read_header(path)
    assert isinstance(instance, Instance)
    assert len(instance.header.PerFrameFunctionalGroupsSequence) == instance.n_frames == 50
    monkeypatch.setattr(header, "_MAX_READS_OF_LARGE", 500)
    assert code(path) == "header too large"


def test_a_header_that_claims_more_than_there_is_is_refused(phantoms: ModuleType, tmp_path: Path) -> None:
    claim = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0" + struct.pack("<I", 0xFFFFFFF0)
    assert code(spliced(one(phantoms, tmp_path), claim)) == "damaged header"  # it ends before what it claims


def test_deflated_bomb_is_refused(phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = one(phantoms, tmp_path, transfer_syntax=DeflatedExplicitVRLittleEndian)
    assert code(path) is None
    data = path.read_bytes()
    start = 132 + 12 + struct.unpack("<I", data[140:144])[0]
    inflated = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(data[:start] + deflater.compress(inflated + bytes(16 * 2**20)) + deflater.flush())
    assert code(path) is None
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 8 * 2**20)
    assert code(path) == "deflated too large"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Rows": 0}, "damaged header"),
        ({"Rows": None}, "damaged header"),
        ({"Columns": 0}, "damaged header"),
        ({"BitsAllocated": 0}, "damaged header"),
        ({"NumberOfFrames": -3}, "damaged header"),
        ({"NumberOfFrames": 0}, None),
        ({"NumberOfFrames": 200_000}, None),
        ({"NumberOfFrames": 200_001}, "too large"),
        ({"NumberOfFrames": 2_147_483_647}, "too large"),
        ({"Rows": 65535, "Columns": 65535}, "too large"),
        ({"Rows": 32768, "Columns": 32768, "NumberOfFrames": 2}, None),
        ({"Rows": 32768, "Columns": 32768, "NumberOfFrames": 3}, "too large"),
    ],
)
def test_sizes_are_checked(
    phantoms: ModuleType, tmp_path: Path, change: dict[str, int | None], expected: str | None
) -> None:
    def edit(image: Dataset, index: int) -> None:
        for keyword, value in change.items():
            setattr(image, keyword, value)

    assert code(one(phantoms, tmp_path, edit=edit)) == expected


@pytest.mark.parametrize("keyword", ["Rows", "PixelData", "SOPClassUID", "BitsAllocated"])
def test_images_without_a_necessary_element_are_skipped(phantoms: ModuleType, tmp_path: Path, keyword: str) -> None:
    path = one(phantoms, tmp_path)
    image = pydicom.dcmread(path)
    delattr(image, keyword)
    image.save_as(path, enforce_file_format=False)
    assert code(path) == "damaged header"


def test_malformed_numbers_of_frames_are_refused(phantoms: ModuleType, tmp_path: Path) -> None:
    path = spliced(one(phantoms, tmp_path), explicit(0x00280008, b"IS", b"many"), before=0x00280010)
    assert code(path) == "damaged header"


def test_the_objects_that_are_no_images_are_skipped_by_kind(phantoms: ModuleType, tmp_path: Path) -> None:
    kinds = {
        "88.11": "structured report",
        "88.59": "key object selection",
        "104.1": "encapsulated PDF",
        "66": "raw data",
    }
    for number, kind in kinds.items():
        path = phantoms.make_object(tmp_path, f"1.2.840.10008.5.1.4.1.1.{number}", seed=f"o{number}")
        assert code(path) == kind
    private = phantoms.make_object(tmp_path, "1.3.12.2.1107.5.9.1", seed="private")  # may have pixels, but has none
    assert read_header(private) == SkippedFile(private, "no image", "The object has no pixels.")
    dose = one(phantoms, tmp_path, sop_class="1.2.840.10008.5.1.4.1.1.481.2")
    assert code(dose) == "RT dose"  # with pixels


def test_no_damage_raises(phantoms: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = [
        phantoms.make_series(tmp_path / "a", count=2, modality="MR", echoes=(10,), enhanced=True)[0],
        one(phantoms, tmp_path / "b", transfer_syntax=ImplicitVRLittleEndian),
        one(phantoms, tmp_path / "c", transfer_syntax=DeflatedExplicitVRLittleEndian),
        one(phantoms, tmp_path / "d", preamble=False),
    ]
    outcomes = set()
    for source in sources:
        data = source.read_bytes()
        for trial in range(60):
            damaged = bytearray(data)
            if trial % 2:
                damaged = damaged[: int(rng.integers(len(data)))]
            else:
                for place in rng.integers(0, min(len(data), 2500), 20):
                    damaged[place] = int(rng.integers(256))
            (tmp_path / "damaged").write_bytes(damaged)
            outcomes.add(code(tmp_path / "damaged"))
    assert len(outcomes) > 3  # among them None, "not DICOM" and "damaged header"


def test_nothing_of_the_file_is_kept_open_or_told(
    phantoms: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    endless = struct.pack("<HH", 0x0009, 0x1010) + LONG + struct.pack("<I", 0xFFFFFFFF)
    whole, cut = one(phantoms, tmp_path / "a"), spliced(one(phantoms, tmp_path / "CANARY"), endless)
    with caplog.at_level("DEBUG"):
        instance, skipped = read_header(whole), read_header(cut)
    assert isinstance(instance, Instance)
    assert isinstance(skipped, SkippedFile)
    assert (instance.header.filename, instance.header.buffer) == (None, None)
    assert not caplog.records
    assert not recwarn.list
    assert "CANARY" not in repr(instance) + skipped.code + skipped.detail

    pydicom.dcmread(cut)  # the control: pydicom alone does tell
    assert any("CANARY" in str(warning.message) for warning in recwarn.list)


def test_real_files_are_read(real_data: Path) -> None:
    folder = real_data / "dicom"
    assert code(folder / "pydicom_data" / "liver_deflate.dcm") == "segmentation"
    assert code(folder / "cornerstone_wado" / "no-pixel-data.dcm") == "structured report"
    for name in ("pydicom_data/bad_sequence.dcm", "pydicom_data/OT-PAL-8-face.dcm", "dcm_qa/agfa/Agfa/011-0001.img"):
        assert isinstance(read_header(folder / name), Instance), name
    without_preamble = read_header(folder / "pydicom_data" / "OT-PAL-8-face.dcm")
    assert isinstance(without_preamble, Instance)
    assert without_preamble.transfer_syntax == ImplicitVRLittleEndian
    for path in (folder / "cornerstone_wado").glob("CTImage.dcm_*"):
        instance = read_header(path)
        assert isinstance(instance, Instance)
        assert instance.transfer_syntax in path.name


def test_element_of_an_unknown_vr_is_dropped(phantoms: ModuleType, tmp_path: Path) -> None:
    (path,) = phantoms.make_series(tmp_path, count=1)
    content = path.read_bytes()
    begin = content.index(b"\x20\x00\x0e\x00UI")  # (0020,000E) Series Instance UID, explicit VR
    path.write_bytes(content[: begin + 4] + b"XX" + content[begin + 6 :])
    found = read_header(path)
    assert isinstance(found, Instance)
    assert "SeriesInstanceUID" not in found.header
    assert "SOPInstanceUID" in found.header


def deflated(data: bytes) -> io.BytesIO:
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return io.BytesIO(deflater.compress(data) + deflater.flush())


def test_stream_reads_until_bytes_or_calls_are_used_up() -> None:
    allowance = Allowance(10, 100)
    first, second = (BoundedStream(io.BytesIO(b"abcdefghijkl"), allowance) for _ in range(2))
    assert first.read(4) == b"abcd"
    first.seek(0)
    assert first.read(2) == b"ab"
    assert second.read(4) == b"abcd"  # both use the same allowance
    with pytest.raises(TooMuchError):
        second.read(1)
    with pytest.raises(TooMuchError) as caught:
        allowance.check()
    assert not isinstance(caught.value, TooManyError)
    Allowance(0, 0).check()

    stream = BoundedStream(io.BytesIO(b"abc"), Allowance(100, 2))
    stream.read(1)
    stream.read(1)
    with pytest.raises(TooManyError):
        stream.read(1)
    with pytest.raises(TooMuchError):
        BoundedStream(io.BytesIO(b"abc"), Allowance(100, 2)).read()


def test_inflated_data_are_exact_as_far_as_they_are_kept() -> None:
    data = np.random.default_rng(0).integers(0, 7, 3 * 2**20, dtype=np.uint8).tobytes()
    assert inflate_beginning(deflated(data), len(data), len(data)).read() == data
    kept = inflate_beginning(deflated(data), 2**19, len(data)).read()
    assert 2**19 <= len(kept) <= 2**19 + 2**20
    assert data.startswith(kept)
    with pytest.raises(TooMuchError):
        inflate_beginning(deflated(data), 10, len(data) - 1)


def test_cut_off_and_damaged_data_raise() -> None:
    whole = deflated(bytes(range(256)) * 100).getvalue()
    with pytest.raises(EOFError):
        inflate_beginning(io.BytesIO(whole[: len(whole) // 2]), 2**20, 2**20)
    with pytest.raises(zlib.error):
        inflate_beginning(io.BytesIO(b"\xff" * 100), 2**20, 2**20)


def test_memory_is_bounded_however_far_the_data_inflate() -> None:
    bomb = deflated(bytes(64 * 2**20))
    assert len(bomb.getvalue()) < 1_000_000
    tracemalloc.start()
    with pytest.raises(TooMuchError):
        inflate_beginning(bomb, 2**20, 48 * 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
