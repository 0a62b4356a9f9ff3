# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Look into folders: visible pictures and sub-folders, in a fixed order, whatever the case of their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from monai_anomalyclip.data.input_files import FRAME_SUFFIXES

__all__ = ["folders", "named", "pictures", "stem", "sub_folder"]

# Not data: what archivers of macOS leave behind.
_IGNORED = ("__MACOSX",)


def folders(parent: Path) -> list[Path]:
    """Visible folders directly in a folder, sorted by name."""
    return [path for path in _visible(parent) if path.is_dir()]


def pictures(folder: Path | None, suffixes: Sequence[str] = FRAME_SUFFIXES) -> list[Path]:
    """Visible pictures directly in a folder, sorted by name.

    Args:
        folder: where to look; None, as :func:`sub_folder` returns, has no pictures.
        suffixes: lower case endings of the names that count.
    """
    if folder is None:
        return []
    return [path for path in _visible(folder) if path.name.lower().endswith(tuple(suffixes)) and path.is_file()]


def sub_folder(parent: Path, *names: str) -> Path | None:
    """The first folder of the given names, preferably of the same case; None if there is none.

    Args:
        parent: where to look.
        names: names, or paths with forward slashes, in order of preference.
    """
    for name in names:
        found: Path | None = parent
        for part in name.split("/"):
            found = _child(found, part) if found is not None else None
        if found is not None:
            return found
    return None


def stem(path: Path) -> str:
    """Name without its suffix; of ``.nii.gz``, without both."""
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def named(paths: Sequence[Path], limit: int = 5) -> str:
    """The first few names of a list, for a message."""
    rest = len(paths) - limit
    return ", ".join(path.name for path in paths[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _visible(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.name[0] != "." and path.name not in _IGNORED)


def _child(parent: Path, name: str) -> Path | None:
    alike = [path for path in folders(parent) if _folded(path.name) == _folded(name)]
    return next((path for path in alike if path.name == name), alike[0] if alike else None)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
