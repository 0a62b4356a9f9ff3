# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write a listing as a MONAI datalist."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data.datasets.listing import DataSetListing, Entry
from monai_anomalyclip.data.frames import read_frame
from monai_anomalyclip.data.masks import read_mask

__all__ = ["write_datalist"]


def write_datalist(listing: DataSetListing, file: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a listing as a JSON file that :func:`monai_anomalyclip.data.load_datalist` and MONAI read.

    The file holds ``name``, ``description``, ``reference``, ``licence``, ``split``, ``counts`` and ``notes``, and one
    list per section of ``{"image", "label", "image_label", "class"}``, without ``label`` where there is no mask. Paths
    are relative to the file's folder. Where an entry is a part of a picture, image and mask are cut out and written as
    PNG into the folder ``FILE_parts`` beside the file.

    Args:
        listing: what to write.
        file: the JSON file; its folder is made when absent.
        overwrite: whether an existing file may be replaced.

    Returns:
        the file.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is off.
        IsADirectoryError: the file is a folder.
        UnreadableInputError: a picture that is to be cut cannot be read.
    """
    file = Path(file)
    if file.is_dir():
        raise IsADirectoryError(f"'{file}' is a folder: give the name of a JSON file in it.")
    if file.exists() and not overwrite:
        raise FileExistsError(f"'{file}' exists already: allow to overwrite it (--overwrite), or give another name.")
    file.parent.mkdir(parents=True, exist_ok=True)
    info = listing.info
    content: dict[str, Any] = {
        "name": info.title,
        "description": info.domain,
        "reference": f"{info.source}. {info.citation}.",
        "licence": info.licence_text,
        "split": listing.split,
        "counts": {section: asdict(counts) for section, counts in listing.counts.items()},
        "notes": [note for note in (listing.difference_from_paper, *listing.notes) if note],
    }
    parts = file.with_name(f"{file.stem}_parts")
    for section, entries in listing.sections.items():
        content[section] = [_item(_cut(entry, parts), file.parent) for entry in entries]
    with replaced_when_complete(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file


def _item(entry: Entry, folder: Path) -> dict[str, Any]:
    item: dict[str, Any] = {"image": _relative(entry.image, folder)}
    if entry.label is not None:
        item["label"] = _relative(entry.label, folder)
    return {**item, "image_label": entry.image_label, "class": entry.class_name}


def _relative(path: Path, folder: Path) -> str:
    """Path from a folder, through links as they were given where possible, so that both can move together."""
    absolute, start = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    if absolute.is_relative_to(start):
        return absolute.relative_to(start).as_posix()
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()


def _cut(entry: Entry, parts: Path) -> Entry:
    """The entry itself, or its part of the picture as files of its own."""
    if entry.rows is None:
        return entry
    first, end = entry.rows
    name = f"{entry.image.parent.name}_{entry.image.stem}_{first:04d}.png"
    image = _write_png(parts / "images" / name, read_frame(entry.image)[first:end])
    label = entry.label and _write_png(parts / "masks" / name, read_mask(entry.label)[first:end] * np.uint8(255))
    return replace(entry, image=image, label=label, rows=None)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format="PNG")
    return path
