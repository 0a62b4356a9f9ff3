# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_anomalyclip.data import UnreadableInputError, read_volume
from monai_anomalyclip.data.gzip_bound import BoundedFile

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.mark.parametrize("name", ["f.bin", "f.bin.gz", "F.GZ"])
def test_reads_what_is_asked_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT, 1) if name.lower().endswith("gz") else CONTENT)
    with BoundedFile.open(path) as file:
        assert file.size == (None if name.lower().endswith("gz") else len(CONTENT))
        assert file.read_exactly(5) == CONTENT[:5]
        file.skip_to(2_500_000)
        assert file.read_exactly(9) == CONTENT[2_500_000:2_500_009]
        assert file.position == 2_500_009
        file.check_end()  # half a megabyte is padding
    with BoundedFile.open(path) as file, pytest.raises(UnreadableInputError, match="ends after 3000000 bytes, 7 too"):
        file.read_exactly(3_000_007)
    with BoundedFile.open(path) as file, pytest.raises(UnreadableInputError, match="ends after 3000000 bytes"):
        file.skip_to(3_000_001)


def test_a_damaged_end_is_noticed(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, 1)
    for wrong in (packed[:-8] + bytes(8), packed[:-3]):
        (tmp_path / "f.gz").write_bytes(wrong)
        with BoundedFile.open(tmp_path / "f.gz") as file:
            assert file.read_exactly(len(CONTENT) - 1) == CONTENT[:-1]
            with pytest.raises((EOFError, gzip.BadGzipFile)):
                file.check_end()


def test_a_bomb_behind_a_small_volume_is_not_inflated(tmp_path: Path) -> None:
    volume = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**24)
    packed = packer.compress(volume) + b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush()
    assert len(packed) < 2**19  # 256 MiB in half a megabyte
    (tmp_path / "bomb.nii.gz").write_bytes(packed)
    tracemalloc.start()
    with pytest.raises(UnreadableInputError, match="inflates to more than the 480 bytes that its header claims"):
        read_volume(tmp_path / "bomb.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
