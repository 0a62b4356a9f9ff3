# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""MONAI datalists: JSON files that list images, masks and labels of an auxiliary or a test set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai_anomalyclip.atomic_file import sha256_of

__all__ = ["entries_digest", "load_datalist"]


def load_datalist(
    path: str | Path,
    section: str = "training",
    base_dir: str | Path | None = None,
    *,
    required: bool = True,
    check_files: bool = True,
) -> list[dict[str, Any]]:
    """Read one section of a datalist and check that its files exist.

    Args:
        path: JSON file with one list per section; an entry has ``image``, and where known ``label`` (mask),
            ``image_label`` (0 normal, 1 anomalous) and ``class``.
        section: "training", "validation", "testing", ...
        base_dir: folder that relative paths refer to; default is the file's own.
        required: whether the section must be there; if not, a missing one is an empty list.
        check_files: whether the files that it names must exist.

    Returns:
        entries with absolute paths.

    Raises:
        FileNotFoundError: when the datalist or a file it names is missing.
        ValueError: when the section or a label is missing or malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no datalist at '{path}': give --dataset_dir a folder that has a datalist.json."
        )
    try:
        sections = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"The datalist '{path}' is not valid JSON: {error}") from error
    if isinstance(sections, dict) and not sections.get(section) and not required:
        return []
    if not isinstance(sections, dict) or not isinstance(sections.get(section), list) or not sections[section]:
        named = ", ".join(sections) if isinstance(sections, dict) else type(sections).__name__
        raise ValueError(f"The datalist '{path}' has no entries under '{section}' (it has: {named}).")
    # MONAI's own loader also takes a class for a path when a folder of that name exists.
    folder = (path.parent if base_dir is None else Path(base_dir)).resolve()
    return [
        _checked(entry, folder, f"Entry {number} of '{section}' in '{path}'", check_files)
        for number, entry in enumerate(sections[section])
    ]


def _checked(entry: Any, folder: Path, which: str, check_files: bool) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
        raise ValueError(f"{which} has no image: it must be an object with the path of an image.")
    item = dict(entry)
    for key in ("image", "label"):
        value = item.get(key)
        if not value:
            continue
        if not isinstance(value, str):
            raise ValueError(f"{which} has a {key} that is no path: {value!r}.")
        item[key] = str(folder / value)
        if check_files and not Path(item[key]).is_file():
            raise FileNotFoundError(f"{which} names a missing {key}: '{item[key]}'.")
    if item.get("image_label", 0) not in (0, 1):
        raise ValueError(f"{which} has image_label {item['image_label']!r}, not 0 or 1.")
    if "image_label" not in item and not item.get("label"):
        raise ValueError(f"{which} has neither a label (mask) nor an image_label.")
    return item


def entries_digest(entries: Iterable[Mapping[str, Any]]) -> str:
    """A short text that differs where what is in the images or masks, their order, labels or classes do.

    Every file is read once, a mebibyte at a time. What files are called and where they lie does not count, so that a
    data set can be moved, and one that was corrected under the same names is another.

    Args:
        entries: with ``image``, and ``label``, ``image_label`` and ``class`` where known.

    Raises:
        FileNotFoundError: a file is missing.
    """
    contents = [
        [
            sha256_of(entry["image"]),
            sha256_of(entry["label"]) if entry.get("label") else "",
            str(entry.get("image_label")),
            str(entry.get("class")),
        ]
        for entry in entries
    ]
    return f"{len(contents)} images, {hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]}"
