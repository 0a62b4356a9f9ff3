# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are made to exhaust memory or time, or to lead a program where it should not go."""

from __future__ import annotations

import importlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

__all__ = ["BOMBS", "ODD_NAMES", "make_bomb"]

_MEBIBYTE = 2**20


def make_bomb(name: str, folder: Path) -> Path:
    """Make one of `BOMBS`."""
    folder.mkdir(parents=True, exist_ok=True)
    maker, suffix, _ = BOMBS[name]
    path = folder / f"{name.replace(' ', '_')}{suffix}"
    maker(path)
    return path


def _zeros(mebibytes: int, begin: bytes = b"") -> bytes:
    """A raw deflate stream of some bytes and then so many zeros; a thousandth of their size, made in no time."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    start = deflate.compress(begin) + deflate.flush(zlib.Z_FULL_FLUSH)
    piece = deflate.compress(bytes(_MEBIBYTE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return start + piece * mebibytes + zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()


def _slice(path: Path, edit: Callable[[Dataset], None] | None = None, **options: Any) -> bytes:
    """A CT slice of 16 x 20 in a file, of which the bytes are returned."""
    phantoms = importlib.import_module("dicom_phantoms")
    own = None if edit is None else lambda header, _: edit(header)
    (made,) = phantoms.make_series(path.parent, count=1, seed=f"s{path.stem}", edit=own, **options)
    made.rename(path)
    return path.read_bytes()


def _changed(path: Path, **values: Any) -> None:
    _slice(path)
    header = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(header, keyword, value)
    header.save_as(path)


def _compressed(path: Path, syntax: str, code: bytes, **values: Any) -> None:
    """A picture of 8 x 8 pixels by its header, with compressed data of another kind."""
    _slice(path)
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = syntax
    header.Rows = header.Columns = 8
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    for keyword, value in values.items():
        setattr(header, keyword, value)
    header.PixelData = encapsulate([code])
    header["PixelData"].is_undefined_length = True
    header.save_as(path)


def _picture(kind: str, size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, 100).save(stream, kind)
    return stream.getvalue()


def _jpeg_of(rows: int, columns: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    code = _picture("JPEG")
    place = code.index(b"\xff\xc0")
    return code[: place + 5] + struct.pack(">HH", rows, columns) + code[place + 9 :]


def _jpeg2000_of(rows: int, columns: int) -> bytes:
    code = _picture("JPEG2000")
    code = code[code.index(b"\xff\x4f\xff\x51") :]
    return code[:8] + struct.pack(">II", columns, rows) + code[16:24] + struct.pack(">II", columns, rows) + code[32:]


def _jpeg_ls_of(rows: int, columns: int) -> bytes:
    import jpeg_ls

    code = bytes(jpeg_ls.encode_array(np.full((8, 8), 100, np.uint8)))
    place = code.index(b"\xff\xf7")
    return code[: place + 5] + struct.pack(">HH", rows, columns) + code[place + 9 :]


def _rle_bomb(path: Path) -> None:
    segment = b"\x81\0" * 2**20  # each pair stands for 128 bytes
    _compressed(path, RLELossless, struct.pack("<16L", 1, 64, *(0,) * 14) + segment)


def _deflated(path: Path, mebibytes: int, in_header: bool) -> None:
    """A deflated data set that inflates to very much, in the pixels or before them."""
    data = _slice(path, transfer_syntax=DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    pixels = body.index(struct.pack("<HH", 0x7FE0, 0x0010))
    size = struct.pack("<L", mebibytes * _MEBIBYTE)
    if in_header:
        head = body[:pixels] + struct.pack("<HH", 0x5000, 0x3000) + b"OW\0\0" + size
    else:
        head = body[: pixels + 8] + size
    path.write_bytes(data[:start] + _zeros(mebibytes, head))


def _nested(path: Path, depth: int) -> None:
    data = _slice(path)
    place = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    begin = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(data[:place] + begin * depth + end * depth + data[place:])


def _wide(path: Path) -> None:
    data = _slice(path)
    place = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    begin = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0\xff\xff\xff\xff"
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 4_000_000
    path.write_bytes(data[:place] + begin + items + b"\xfe\xff\xdd\xe0\0\0\0\0" + data[place:])


def _nifti_header(shape: tuple[int, ...], dtype: int = 4, bits: int = 16) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *(1,) * (7 - len(shape)))
    struct.pack_into("<hh", header, 70, dtype, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header)


def _gzip(body: bytes) -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + body + bytes(8)


def _png(width: int, height: int, chunks: tuple[tuple[bytes, bytes], ...]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(chunk(*one) for one in chunks) + chunk(b"IEND", b"")


def _zlib(body: bytes) -> bytes:
    return b"\x78\xda" + body + bytes(4)


def _tiff(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """A TIFF with one directory of (tag, type, count, value) at byte 8, which names the next."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


_TIFF_ENTRIES = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
                 (278, 3, 1, 4), (279, 4, 1, 16)]  # fmt: skip


def _many_pages(path: Path) -> None:
    """A TIFF of 100,000 directories without entries."""
    pages = b"".join(struct.pack("<HI", 0, 8 + 6 * (page + 1)) for page in range(100_000))
    path.write_bytes(b"II*\0\x08\0\0\0" + pages + bytes(6))


BOMBS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "deflated pixels": (lambda path: _deflated(path, 2048, False), ".dcm", "inflates to more than"),
    "deflated header": (lambda path: _deflated(path, 2048, True), ".dcm", "inflates to more than"),
    "huge": (lambda path: _changed(path, Rows=65535, Columns=65535), ".dcm", "more than the allowed"),
    "huge film": (
        lambda path: _changed(path, Rows=65535, Columns=65535, NumberOfFrames=10_000), ".dcm", "more than the allowed"
    ),
    "frames": (lambda path: _changed(path, NumberOfFrames=2**31 - 1), ".dcm", "more than the allowed"),
    "missing pixels": (lambda path: _changed(path, Rows=20_000, Columns=20_000), ".dcm", "truncated"),
    "large jpeg": (
        lambda path: _compressed(path, JPEGBaseline8Bit, _jpeg_of(12_000, 12_000)), ".dcm", "hold 12000 x 12000"
    ),
    "whole large jpeg": (
        lambda path: _compressed(path, JPEGBaseline8Bit, _picture("JPEG", (12_000, 12_000))), ".dcm",
        "cannot be one frame",
    ),
    "small jpeg": (
        lambda path: _compressed(path, JPEGBaseline8Bit, _picture("JPEG"), Rows=12_000, Columns=12_000), ".dcm",
        "hold 8 x 8",
    ),
    "large jpeg2000": (
        lambda path: _compressed(path, JPEG2000Lossless, _jpeg2000_of(2**31 - 1, 2**31 - 1)), ".dcm", "hold 2147483647"
    ),
    "large jpegls": (
        lambda path: _compressed(path, JPEGLSLossless, _jpeg_ls_of(65535, 65535)), ".dcm", "hold 65535 x 65535"
    ),
    "rle": (_rle_bomb, ".dcm", "Cannot read frame 1"),
    "nested": (lambda path: _nested(path, 500), ".dcm", "header"),
    "deeply nested": (lambda path: _nested(path, 50_000), ".dcm", "header"),
    "many items": (_wide, ".dcm", "header"),
    "gzip": (lambda path: path.write_bytes(_gzip(_zeros(4096, _nifti_header((8, 8, 8))))), ".nii.gz", "inflates to"),
    "gzip of 8 GiB": (
        lambda path: path.write_bytes(_gzip(_zeros(8192, _nifti_header((2000, 2000, 1000))))), ".nii.gz", "more than"
    ),
    "huge volume": (
        lambda path: path.write_bytes(_nifti_header((32767, 32767, 32767))), ".nii", "more than the allowed"
    ),
    "missing voxels": (lambda path: path.write_bytes(_nifti_header((800, 800, 800))), ".nii", "truncated"),
    "time points": (
        lambda path: path.write_bytes(_nifti_header((64, 64, 64, 32767, 32767))), ".nii", "dimensions"
    ),
    "far voxels": (
        lambda path: path.write_bytes(_nifti_header((8, 8, 8))[:108] + struct.pack("<f", 1e30) + bytes(240)), ".nii", ""
    ),
    "png": (
        lambda path: path.write_bytes(_png(60_000, 60_000, ((b"IDAT", _zlib(_zeros(3433))),))), ".png", "pixels"
    ),
    "png text": (
        lambda path: path.write_bytes(
            _png(1, 1, ((b"zTXt", b"a\0\0" + _zlib(_zeros(1024))), (b"IDAT", zlib.compress(b"\0\0"))))
        ), ".png", "",
    ),
    "png profile": (
        lambda path: path.write_bytes(
            _png(1, 1, ((b"iCCP", b"a\0\0" + _zlib(_zeros(1024))), (b"IDAT", zlib.compress(b"\0\0"))))
        ), ".png", "",
    ),
    "jpeg": (lambda path: path.write_bytes(_jpeg_of(65_500, 65_500)), ".jpg", "pixels"),
    "tiff": (
        lambda path: path.write_bytes(
            _tiff([(tag, 4 if tag < 258 else kind, 1, 70_000 if tag < 258 else value)
                   for tag, kind, _, value in _TIFF_ENTRIES])
        ), ".tif", "pixels",
    ),
    "tiff in a circle": (lambda path: path.write_bytes(_tiff(_TIFF_ENTRIES, 8) + bytes(64)), ".tif", ""),
    "tiff pages": (_many_pages, ".tif", "pages"),
    "tiff tag": (
        lambda path: path.write_bytes(_tiff([*_TIFF_ENTRIES, (65000, 1, 2**32 - 1, 8)]) + bytes(64)), ".tif", ""
    ),
    "gif": (
        lambda path: path.write_bytes(b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;"),
        ".gif", "pixels",
    ),
    "bmp": (
        lambda path: path.write_bytes(
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
        ), ".bmp", "pixels",
    ),
    "pipe": (lambda path: os.mkfifo(path), ".dcm", ""),
    "pipe volume": (lambda path: os.mkfifo(path), ".nii", ""),
    "pipe gzip": (lambda path: os.mkfifo(path), ".nii.gz", ""),
    "pipe picture": (lambda path: os.mkfifo(path), ".png", ""),
    "pipe pages": (lambda path: os.mkfifo(path), ".tif", ""),
    "pipe film": (lambda path: os.mkfifo(path), ".mp4", ""),
    "folder": (lambda path: path.mkdir(), ".png", ""),
    "film": (lambda path: path.write_bytes(bytes(2000)), ".mp4", ""),
}  # fmt: skip
"""By name: what makes the file, its suffix, and what is said of it ("": anything, or it is read)."""

ODD_NAMES = (
    "$(touch planted).png", "`touch planted`.png", "a;touch planted;.png", "$__import__('os').mkdir('planted').png",
    "%(name)s%n%s.png", "@dataset_dir.png", "..png", "...png", "..\\..\\up.png", "-rf.png", "--output.png",
    "a b\tc.png",
    "line\nfeed.png", "<img src=x onerror=alert(1)>.png", "con.png", "nul.dcm.png", "a'\"b.png", "\u202eevil.png",
    "肺.png", b"\xff\xfe\x80.png", f"{'x' * 240}.png", "~root.png", "*.png", "?.png", "|cat.png", "&.png",
)  # fmt: skip
"""Names of pictures that some program might take for something else."""
