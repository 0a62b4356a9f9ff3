# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from monai_anomalyclip.atomic_file import git_blob_id, sha256_of


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 7])
def test_digests_of_a_file(size: int, tmp_path: Path) -> None:
    content = bytes(index % 251 for index in range(size))
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert git_blob_id(tmp_path / "file") == hashlib.sha1(b"blob %d\0" % size + content).hexdigest()


def test_blob_id_is_what_git_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what is up, doc?")
    assert git_blob_id(tmp_path / "file") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # the example of git's book
    if git := shutil.which("git"):
        done = subprocess.run([git, "hash-object", tmp_path / "file"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == git_blob_id(tmp_path / "file")
