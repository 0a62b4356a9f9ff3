# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_anomalyclip.writers.gzip_file import gzip_compressed

MIB = 2**20
SIZES = [0, 1, 1000, MIB - 1, MIB, MIB + 1, 3 * MIB + 77]


def smooth_map(count: int) -> bytes:
    """Bytes of slowly changing floats, as in an anomaly map."""
    values = np.cumsum(np.random.default_rng(0).normal(0, 1e-4, count // 4 + 1)) + 0.3
    return values.astype(np.float32).tobytes()[:count]


@pytest.mark.parametrize("size", SIZES)
def test_any_reader_gets_the_content_back(size: int, tmp_path: Path) -> None:
    content = smooth_map(size)
    packed = gzip_compressed(content)
    assert gzip.decompress(packed) == content
    reader = zlib.decompressobj(31)  # one member: nothing is left over
    assert reader.decompress(packed) == content
    assert (reader.eof, reader.unused_data) == (True, b"")
    (tmp_path / "file.gz").write_bytes(packed)
    assert subprocess.run(["gzip", "-dc", str(tmp_path / "file.gz")], capture_output=True).stdout == content


def test_the_same_bytes_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    content = smooth_map(3 * MIB)
    packed = []
    for threads in (1, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        packed.append(gzip_compressed(content))
    assert packed[0] == packed[1]
    assert packed[0][4:8] == bytes(4)  # no time


@pytest.mark.parametrize("kind", ["map", "mask"])
def test_hardly_larger_than_with_the_usual_search(kind: str) -> None:
    content = smooth_map(MIB)
    if kind == "mask":
        content = (np.frombuffer(content, np.float32) > 0.3).astype(np.uint8).tobytes()
    assert len(gzip_compressed(content)) < 1.1 * len(gzip.compress(content, 6)) + 64
