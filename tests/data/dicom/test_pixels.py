# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jpeg_ls
import numpy as np
import openjpeg
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from monai_anomalyclip.data.dicom import FrameReference, Instance
from monai_anomalyclip.data.dicom import pixels as module
from monai_anomalyclip.data.dicom.header import read_header
from monai_anomalyclip.data.dicom.pixels import DecodedFrame, decode_frames
from monai_anomalyclip.data.errors import UnreadableInputError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 4096, (3, 40, 52), dtype=np.uint16)
COLOUR = np.kron(RNG.integers(0, 256, (2, 5, 6, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
Write = Callable[..., Instance]


def as_instance(path: Path) -> Instance:
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    return Instance(path, header, str(header.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2"))


def decode(instance: Instance, *indices: int) -> list[DecodedFrame]:
    return list(decode_frames([FrameReference(instance, index) for index in indices or (0,)]))


@pytest.fixture
def write(tmp_path: Path, phantoms: ModuleType) -> Write:
    """Writes frames, or bytes that are said to be frames, with whatever attributes."""

    def write(pixels: np.ndarray | bytes, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> Instance:
        path = phantoms.make_cine(
            tmp_path, count=1, photometric="MONOCHROME2", seed=f"f{len(list(tmp_path.iterdir()))}"
        )
        dataset = pydicom.dcmread(path)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        if isinstance(pixels, np.ndarray):
            dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
            pixels = pixels.tobytes()
        for keyword, value in attributes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        dataset.PixelData = pixels
        dataset.file_meta.TransferSyntaxUID = syntax
        if UID(syntax).is_encapsulated:
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
        return as_instance(path)

    return write


def refused(instance: Instance, words: str, index: int = 0) -> None:
    with pytest.raises(UnreadableInputError, match=words) as caught:
        decode(instance, index)
    text = str(caught.value)
    assert "CANARY" not in text
    assert instance.path.name not in text
    assert str(instance.header.SOPInstanceUID) not in text


SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("options", [{}, {"bits_stored": 12}, {"signed": False}, {"bits_stored": 8, "signed": False}])
def test_all_syntaxes_give_what_was_stored(
    tmp_path: Path, phantoms: ModuleType, syntax: str, options: dict[str, object]
) -> None:
    options = {"size": (36, 40), "count": 2, "slope": 4 if options.get("bits_stored") else None, **options}
    plain = phantoms.make_series(tmp_path / "plain", **options)
    coded = phantoms.make_series(tmp_path / "coded", transfer_syntax=syntax, **options)
    for one, other in zip(plain, coded, strict=True):
        (result,) = decode(as_instance(other))
        expected = pydicom.dcmread(one)
        dtype = f"{'i' if expected.PixelRepresentation else 'u'}{expected.BitsAllocated // 8}"
        np.testing.assert_array_equal(result.values, np.frombuffer(expected.PixelData, f"<{dtype}").reshape(36, 40))
        assert result.values.dtype == np.dtype(dtype)
        assert result.photometric == "MONOCHROME2"


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("syntax", [None, *SYNTAXES.values()], ids=["explicit", *SYNTAXES])
def test_colour_in_all_syntaxes(tmp_path: Path, phantoms: ModuleType, syntax: str | None, photometric: str) -> None:
    if syntax == JPEG2000Lossless and photometric != "RGB":
        pytest.skip("not a colour space of JPEG 2000")
    options = {"size": (36, 40), "count": 1, "photometric": photometric, "modality": "XC"}
    (path,) = phantoms.make_series(tmp_path / "plain", **options)
    (coded,) = phantoms.make_series(tmp_path / "coded", transfer_syntax=syntax or ExplicitVRLittleEndian, **options)
    (result,) = decode(as_instance(coded))
    expected = np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8).reshape(36, 40, 3)
    np.testing.assert_array_equal(result.values, expected)
    assert result.photometric == photometric


def test_planar_configuration(write: Write) -> None:
    planes = np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2))
    attributes = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "Rows": 40, "Columns": 48}
    attributes |= {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 1, "NumberOfFrames": 2}
    for index, frame in enumerate(decode(write(planes.tobytes(), **attributes), 0, 1)):
        np.testing.assert_array_equal(frame.values, COLOUR[index])
    # A JPEG is interleaved, whatever the header says.
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(buffer, "JPEG", quality=100, subsampling=0)
    attributes |= {"NumberOfFrames": 1, "PhotometricInterpretation": "YBR_FULL"}
    (frame,) = decode(write(encapsulate([buffer.getvalue()]), JPEGBaseline8Bit, **attributes))
    expected = np.asarray(Image.fromarray(COLOUR[0]).convert("YCbCr")).astype(int)
    assert np.abs(frame.values - expected).max() <= 3


@pytest.mark.parametrize("kept", [0.4, 0.7, 0.9])
@pytest.mark.parametrize("gray", [False, True])
def test_jpeg_that_ends_early_and_in_order(write: Write, gray: bool, kept: float) -> None:
    """Cut within its scan and closed again: the decoder would fill up the rest without a word."""
    smooth = np.cumsum(np.random.default_rng(0).normal(0, 3, (64, 64, 3)), axis=1) * 4 + 128
    picture = Image.fromarray(np.clip(smooth, 1, 255).astype(np.uint8)).convert("L" if gray else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    content = buffer.getvalue()
    attributes: dict[str, object] = {"Rows": 64, "Columns": 64, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    attributes |= {"PixelRepresentation": 0, "SamplesPerPixel": 1 if gray else 3, "PlanarConfiguration": 0}
    attributes["PhotometricInterpretation"] = "MONOCHROME2" if gray else "YBR_FULL_422"
    assert decode(write(encapsulate([content]), JPEGBaseline8Bit, **attributes))
    cut = content[: int(len(content) * kept)] + b"\xff\xd9"
    refused(write(encapsulate([cut]), JPEGBaseline8Bit, **attributes), "its pixels end before the picture does")


def test_signs_are_extended_and_unused_bits_dropped(write: Write) -> None:
    signed = (GRAY.astype(np.int16) - 2048) & 0x0FFF  # 12 bits without sign extension
    frames = decode(write(signed, PixelRepresentation=1), 0, 1, 2)
    np.testing.assert_array_equal([frame.values for frame in frames], GRAY.astype(int) - 2048)
    dirty = GRAY | 0xA000
    np.testing.assert_array_equal(decode(write(dirty))[0].values, GRAY[0])
    high = GRAY << 4 | 5
    np.testing.assert_array_equal(decode(write(high, HighBit=15))[0].values, GRAY[0])
    raised = (GRAY.astype(np.int16) - 2048) << 3
    frame = decode(write(raised, HighBit=14, PixelRepresentation=1))[0]
    np.testing.assert_array_equal(frame.values, GRAY[0].astype(int) - 2048)
    for wrong in (3, 99):
        np.testing.assert_array_equal(decode(write(GRAY, HighBit=wrong))[0].values, GRAY[0])


def test_bits_and_floats(write: Write, tmp_path: Path) -> None:
    bits = RNG.integers(0, 2, (3, 5, 7), dtype=np.uint8)  # 35 bits: frames do not begin at bytes
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes() + b"\0"
    sizes = {"Rows": 5, "Columns": 7, "NumberOfFrames": 3, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    frames = decode(write(packed, **sizes), 0, 1, 2)
    np.testing.assert_array_equal([frame.values for frame in frames], bits)
    dataset = pydicom.dcmread(write(GRAY[:1]).path)
    del dataset.PixelData
    dataset.FloatPixelData = (GRAY[0] / 7).astype("<f4").tobytes()
    dataset.BitsAllocated = 32
    dataset.save_as(tmp_path / "float.dcm")
    np.testing.assert_array_equal(decode(as_instance(tmp_path / "float.dcm"))[0].values, (GRAY[0] / 7).astype("f4"))


def test_order_and_reuse_of_files(write: Write) -> None:
    one, other = write(GRAY), write(GRAY[::-1])
    order = [(one, 2), (one, 0), (other, 0), (one, 1), (other, 2)]
    frames = decode_frames([FrameReference(*pair) for pair in order])
    expected = [GRAY[index] if instance is one else GRAY[2 - index] for instance, index in order]
    for frame, values in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.values, values)


@pytest.mark.parametrize("table", ["basic", "extended", "none", "fragmented", "fragmented with table"])
def test_frames_of_compressed_files(write: Write, table: str) -> None:
    coded = [bytes(jpeg_ls.encode_array(frame)) for frame in GRAY]
    attributes: dict[str, object] = {"NumberOfFrames": 3, "Rows": 40, "Columns": 52}
    if table == "extended":
        data, attributes["ExtendedOffsetTable"], attributes["ExtendedOffsetTableLengths"] = encapsulate_extended(coded)
    else:
        parts = 3 if "fragmented" in table else 1
        data = encapsulate(coded, fragments_per_frame=parts, has_bot=table in ("basic", "fragmented with table"))
    instance = write(data, JPEGLSLossless, **attributes)
    for index in (2, 0, 1):
        np.testing.assert_array_equal(decode(instance, index)[0].values, GRAY[index])
    cut = instance.path.read_bytes()
    instance.path.write_bytes(cut[: len(cut) - len(coded[2]) // 2])
    refused(instance, "truncated", 2)


def test_nothing_but_the_frame_is_read(write: Write) -> None:
    instance = write(np.zeros((40, 512, 512), np.uint16))
    tracemalloc.start()
    decode(instance, 33)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 512 * 512 * 2


@pytest.mark.parametrize(
    ("name", "transform", "photometric", "becomes"),
    [
        ("JFIF", None, "YBR_FULL_422", "YBR_FULL_422"),
        ("none", None, "YBR_FULL_422", "YBR_FULL_422"),
        ("Adobe", 1, "YBR_FULL_422", "RGB"),
        ("Adobe", 1, "RGB", "RGB"),
        ("Adobe", 0, "RGB", "RGB"),
    ],
)
@pytest.mark.parametrize("plugin", ["pillow", "gdcm"])
def test_colour_transform_of_jpeg(
    monkeypatch: pytest.MonkeyPatch,
    write: Write,
    name: str,
    transform: int | None,
    photometric: str,
    becomes: str,
    plugin: str,
) -> None:
    picture = Image.fromarray(COLOUR[0])
    if transform == 0:
        picture = Image.merge("YCbCr", picture.split())  # RGB, with a name that keeps Pillow from converting
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=100, subsampling=0)
    data = buffer.getvalue()
    if name != "JFIF":
        data = data[:2] + data[4 + struct.unpack_from(">H", data, 4)[0] :]
    if transform is not None:
        data = data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform]) + data[2:]
    monkeypatch.setattr(module, "_PLUGINS", (plugin,))
    attributes = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    instance = write(
        encapsulate([data]), JPEGBaseline8Bit, Rows=40, Columns=48, PhotometricInterpretation=photometric, **attributes
    )
    (frame,) = decode(instance)
    if becomes == "RGB" and transform == 1 and plugin == "gdcm":
        becomes = "YBR_FULL"
    assert frame.photometric == becomes
    expected = COLOUR[0] if becomes == "RGB" else np.asarray(Image.fromarray(COLOUR[0]).convert("YCbCr"))
    assert np.abs(frame.values.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_extended_jpeg_as_simpleitk_decodes_it(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    (frame,) = decode(as_instance(path))
    np.testing.assert_array_equal(frame.values, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0])


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_extended_jpeg_that_ends_early(tmp_path: Path, kept: float) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("JPGExtended.dcm")))
    content = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([content[: int(len(content) * kept)] + b"\xff\xd9"])
    dataset.save_as(tmp_path / "cut.dcm")
    refused(as_instance(tmp_path / "cut.dcm"), "its pixels end before the picture does")


def test_lossless_jpeg_that_ends_early(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "dicom" / "cornerstone_wado"
    path = folder / "CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm"
    assert decode(as_instance(path))[0].values.shape == (512, 512)
    dataset = pydicom.dcmread(path)
    content = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([content[:150000] + b"\xff\xd9"])
    dataset.save_as(tmp_path / "cut.dcm")
    refused(as_instance(tmp_path / "cut.dcm"), "its pixels end before the picture does")


def test_unusual_files_of_pydicom() -> None:
    reference = decode(as_instance(Path(str(get_testdata_file("MR_small.dcm")))))[0].values
    for name in ("implicit", "bigendian", "RLE", "jp2klossless", "jpeg_ls_lossless", "padded"):
        path = Path(str(get_testdata_file(f"MR_small_{name}.dcm")))
        np.testing.assert_array_equal(decode(as_instance(path))[0].values, reference)
    for name in ("JPEG2000.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "GDCMJ2K_TextGBR.dcm"):
        path = Path(str(get_testdata_file(name)))
        values = decode(as_instance(path))[0].values
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
        header = pydicom.dcmread(path, stop_before_pixels=True)
        rescaled = values * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
        np.testing.assert_allclose(rescaled, expected)
    for name, words in (
        ("MR_truncated.dcm", "truncated"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "tiles"),
        ("badVR.dcm", "NumberOfFrames in its header is absent or no number"),
    ):
        refused(as_instance(Path(str(get_testdata_file(name)))), words)


def test_syntaxes_that_cannot_be_decoded(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    data = encapsulate([bytes(openjpeg.encode(GRAY[0], 12, 2))])
    sizes = {"Rows": 40, "Columns": 52}
    ht = write(data, "1.2.840.10008.1.2.4.201", **sizes)
    name = r"transfer syntax High-Throughput JPEG 2000 .*\(1\.2\.840\.10008\.1\.2\.4\.201\): install pylibjpeg and "
    if "pylibjpeg" in get_decoder("1.2.840.10008.1.2.4.201").available_plugins:
        np.testing.assert_array_equal(decode(ht)[0].values, GRAY[0])
        monkeypatch.setattr(module, "_PLUGINS", ())
    refused(ht, name)
    refused(write(data, "1.2.840.10008.1.2.4.92", **sizes), r"\(1\.2\.840\.10008\.1\.2\.4\.92\): convert the file")
    refused(write(data, "1.2.840.10008.1.2.4.94", **sizes), r"JPIP Referenced \(1.*: convert the file")
    coloured = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(buffer, "JPEG")
    retired = {**coloured, "Rows": 40, "Columns": 48, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    refused(write(encapsulate([buffer.getvalue()]), "1.2.840.10008.1.2.4.53", **retired), r"4\.53\): convert the file")
    private = write(data, JPEG2000Lossless, **sizes)
    newer = Instance(private.path, private.header, "1.2.840.10008.1.2.4.999")
    refused(newer, r"syntax 1\.2\.840\.10008\.1\.2\.4\.999: convert")
    refused(Instance(private.path, private.header, "1.2.3.19500607"), "syntax that is not of the standard: convert")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Rows": 0}, "cannot be: 0 x 52"),
        ({"Rows": None}, "Rows in its header is absent"),
        ({"SamplesPerPixel": 4}, "4 samples"),
        ({"BitsAllocated": 12}, "12 bits allocated .packed pixels are retired"),
        ({"BitsAllocated": 24}, "24 bits allocated; only 1, 8, 16"),
        ({"BitsStored": 17}, "17 in 16 bits"),
        ({"Rows": 65535, "Columns": 65535}, "takes 8,589,672,450 bytes"),
        ({"NumberOfFrames": 4}, "truncated"),
        ({"Rows": 41}, "truncated"),
    ],
)
def test_impossible_headers(write: Write, attributes: dict[str, object], words: str) -> None:
    number = int(str(attributes.get("NumberOfFrames", 3)))
    refused(write(GRAY, **attributes), words, number - 1)


def test_frames_that_are_not_there(write: Write) -> None:
    refused(write(GRAY), "has only 3 frames", 3)
    refused(write(b"\xfe\xff\x00\xe0" + bytes(4), RLELossless, Rows=40, Columns=52), "holds no pixel data")
    gone = write(GRAY)
    gone.path.unlink()
    refused(gone, "the file is gone")
    contradiction = write(GRAY[:1])
    refused(Instance(contradiction.path, contradiction.header, RLELossless), "contradict each other")
    bare = write(GRAY[:1])
    dataset = pydicom.dcmread(bare.path)
    del dataset.PixelData
    dataset.save_as(bare.path)
    refused(bare, "holds no pixel data")


def test_any_damage_is_one_clear_error(write: Write) -> None:
    instances = [
        write(GRAY[:1]),
        write(encapsulate([bytes(jpeg_ls.encode_array(GRAY[0]))]), JPEGLSLossless, Rows=40, Columns=52),
    ]
    instances.append(
        write(encapsulate([bytes(openjpeg.encode(GRAY[0], 12, 2))]), JPEG2000Lossless, Rows=40, Columns=52)
    )
    for instance in instances:
        whole = instance.path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for position in RNG.integers(200, len(whole), 12):
                damaged[position] = RNG.integers(256)
            instance.path.write_bytes(damaged[: RNG.integers(200, len(whole))] if RNG.random() < 0.3 else damaged)
            with contextlib.suppress(UnreadableInputError):
                assert decode(instance)[0].values.shape == (40, 52)


class TestBombs:
    @pytest.fixture(autouse=True)
    def bounded(self, monkeypatch: pytest.MonkeyPatch) -> object:
        """No decoder is reached, and memory does not grow by more than a few headers."""
        reached: list[str] = []
        monkeypatch.setattr(module, "get_decoder", reached.append)
        monkeypatch.setattr(module, "decode_extended_jpeg", lambda *_: reached.append("gdcm"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield
        assert reached == []
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB

    @pytest.mark.parametrize("syntax", ["50", "51", "53", "57", "70", "80", "90", "201"])
    def test_more_pixels_than_the_header_says(self, write: Write, syntax: str) -> None:
        if syntax in ("90", "201"):
            data = bytearray(openjpeg.encode(GRAY[0], 12, 2))
            data[8:16] = data[24:32] = struct.pack(">2I", 12000, 12000)
        else:
            data = bytearray(jpeg_ls.encode_array(GRAY[0]))
            start = data.index(b"\xff\xf7")
            data[start + 5 : start + 9] = struct.pack(">2H", 12000, 12000)
            data[start + 1] = 0xF7 if syntax == "80" else 0xC3 if syntax in ("57", "70") else 0xC1
        instance = write(encapsulate([bytes(data)]), f"1.2.840.10008.1.2.4.{syntax}", Rows=8, Columns=8)
        refused(instance, "12000 x 12000 x 1 samples of 12 bits, but the header says 8 x 8")

    def test_rle(self, write: Write) -> None:
        data = struct.pack("<16I", 2, 64, 500_064, *[0] * 13) + b"\x81\x07" * 500_000  # 128 MB
        refused(write(encapsulate([data]), RLELossless, Rows=8, Columns=8), "more than the frame holds")

    def test_one_frame_of_many_bytes(self, write: Write) -> None:
        data = struct.pack("<16I", 2, 64, 65, *[0] * 13) + bytes(3 * 2**20)
        refused(write(encapsulate([data]), RLELossless, Rows=8, Columns=8), "compressed bytes cannot be one frame")

    def test_deflated(self, write: Write) -> None:
        plain = write(GRAY[:1])
        whole = plain.path.read_bytes()
        start = 144 + pydicom.dcmread(plain.path).file_meta.FileMetaInformationGroupLength
        pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = pack.compress(whole[start:]) + b"".join(pack.compress(bytes(2**20)) for _ in range(100)) + pack.flush()
        plain.path.write_bytes(whole[:start] + packed)
        deflated = Instance(plain.path, plain.header, "1.2.840.10008.1.2.1.99")
        refused(deflated, "inflates to more than its header says")
        plain.path.write_bytes(whole[:start] + packed[:2000])
        refused(deflated, "truncated")


def test_deflated_without_the_length_of_its_meta_information(write: Write) -> None:
    plain = write(GRAY[:1])
    whole = plain.path.read_bytes()
    start = 144 + pydicom.dcmread(plain.path).file_meta.FileMetaInformationGroupLength
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain.path.write_bytes(whole[:132] + whole[144:start] + pack.compress(whole[start:]) + pack.flush())
    (frame,) = decode(Instance(plain.path, plain.header, "1.2.840.10008.1.2.1.99"))
    np.testing.assert_array_equal(frame.values, GRAY[0])


@pytest.mark.parametrize("how", ["written to", "replaced"])
def test_a_file_that_changes_after_its_header_was_read(how: str, tmp_path: Path, phantoms: ModuleType) -> None:
    """Header and pixels would be of two images, and the record would say that it is the new one."""
    (path,) = phantoms.make_series(tmp_path / "a", count=1)
    (other,) = phantoms.make_series(tmp_path / "b", count=1, origin=(0, 0, 30))
    instance = read_header(path)
    assert isinstance(instance, Instance)
    assert decode(instance)
    if how == "replaced":
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    refused(instance, "changed, or replaced, after its header was read")


def test_without_permission(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = write(GRAY[:1])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(instance.path))

    monkeypatch.setattr(type(instance.path), "open", refuse)
    refused(instance, "you have no permission to read the file")


def test_pydicom_stays_silent(write: Write, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    data = bytearray(openjpeg.encode(GRAY[0], 12, 2))
    data[200:] = b"\0" * (len(data) - 200)
    instance = write(encapsulate([bytes(data)]), JPEG2000Lossless, Rows=40, Columns=52)
    refused(instance, "damaged or of a rare kind")
    decode(write(GRAY.tobytes() + bytes(5000), Rows=40, Columns=52, NumberOfFrames=3))
    assert caplog.records == []
    assert len(recwarn) == 0


REFERENCE = "CTImage.dcm"
LOSSY = {"91": 5, "81": 1}  # largest difference that the compression made, measured


def test_real_ct_in_all_syntaxes(real_data: Path) -> None:
    folder = real_data / "dicom" / "cornerstone_wado"
    reference = pydicom.dcmread(folder / REFERENCE).pixel_array.astype(int)
    seen = 0
    for path in sorted(folder.glob("CTImage.dcm_*")):
        (frame,) = decode(as_instance(path))
        syntax = as_instance(path).transfer_syntax.split(".")[-1]
        if syntax in ("50", "51", "53", "55"):  # lossy with fewer bits, on another scale
            header: Dataset = as_instance(path).header
            hounsfield = frame.values * float(header.RescaleSlope) + float(header.RescaleIntercept)
            np.testing.assert_allclose(hounsfield, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0])
            assert np.abs(hounsfield - (reference - 1024)).mean() < (25 if syntax == "50" else 4)
        else:
            assert np.abs(frame.values - reference).max() <= LOSSY.get(syntax, 0), syntax
        seen += 1
    assert seen == 15


def test_real_fragments_without_a_table(real_data: Path) -> None:
    path = real_data / "dicom" / "cornerstone_wado" / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"
    frames = decode(as_instance(path), 0, 1)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal([frame.values - 1024.0 for frame in frames], expected)


@pytest.mark.parametrize(("name", "number"), [("Unsigned", 2), ("Unsigned_0x0F0F", 3), ("Signed_0x0F0F", 4)])
def test_real_12_bits_as_dcm2niix_reads_them(real_data: Path, name: str, number: int) -> None:
    import nibabel as nib

    folder = real_data / "dicom" / "dcm_qa" / "12bit"
    (frame,) = decode(as_instance(folder / "In" / f"12bit{name}.dcm"))
    expected = np.asanyarray(nib.load(folder / "Ref" / f"{number}.nii").dataobj)
    tiles = frame.values.reshape(6, 64, 6, 64).swapaxes(1, 2).reshape(36, 64, 64)[:35]  # a mosaic of slices
    np.testing.assert_array_equal(tiles.transpose(2, 1, 0)[:, ::-1], expected)
