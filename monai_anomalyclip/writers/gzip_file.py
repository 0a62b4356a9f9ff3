# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Gzip on all cores: what takes longest of writing a large volume."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["gzip_compressed"]

_CHUNK = 2**20
_LEVEL = 6
_HEADER = struct.pack("<4BIBB", 0x1F, 0x8B, 8, 0, 0, 0, 255)  # deflate, no name, no time, unknown system (RFC 1952)
_END = b"\x03\x00"  # an empty last block (RFC 1951)


def gzip_compressed(content: bytes) -> bytes:
    """Compress to one gzip member that any reader takes, on as many threads as torch uses.

    The content is cut into pieces of one MiB that are deflated independently (as pigz does) and looks the same whatever
    the number of threads. Matches are sought among the last byte alone (``Z_RLE``): an anomaly map's floats hardly ever
    repeat, so that the search for longer ones takes most of the time and finds nothing.

    Args:
        content: the bytes.

    Returns:
        the bytes of a .gz file, without name and time.
    """
    whole = memoryview(content)
    pieces = [whole[start : start + _CHUNK] for start in range(0, len(whole), _CHUNK)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # zlib lets go of the interpreter's lock
        blocks = list(pool.map(_deflated, pieces))
    return b"".join([_HEADER, *blocks, _END, struct.pack("<II", zlib.crc32(whole), len(whole) & 0xFFFFFFFF)])


def _deflated(piece: memoryview) -> bytes:
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, zlib.Z_RLE)
    return stream.compress(piece) + stream.flush(zlib.Z_FULL_FLUSH)
