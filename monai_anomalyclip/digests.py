# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Digests that a file's content is known by."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

__all__ = ["git_blob_id", "sha256_of"]

_CHUNK = 1 << 20


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    return _digest(hashlib.sha256(), Path(path))


def git_blob_id(path: str | Path) -> str:
    """The name that git gives a file's content, 40 hexadecimal digits: SHA-1 of ``blob <size>``, a zero byte, content.

    It tells that a file is the one in a repository. SHA-1 withstands accidents, not a forger with great means.
    """
    path = Path(path)
    header = f"blob {path.stat().st_size}\0".encode()
    return _digest(hashlib.sha1(header, usedforsecurity=False), path)


def _digest(digest: Any, path: Path) -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    text: str = digest.hexdigest()
    return text
