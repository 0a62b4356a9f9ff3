# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What lies in the folders of a data set, what is known of it, and the list made of both, also as a MONAI datalist."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data.input_files import FRAME_SUFFIXES

__all__ = [
    "Counts",
    "DataSet",
    "DataSetInfo",
    "DataSetListing",
    "Entry",
    "Found",
    "LayoutError",
    "folders",
    "named",
    "pictures",
    "stem",
    "sub_folder",
    "write_datalist",
]

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


class LayoutError(ValueError):
    """A folder is not laid out as the data set is published; the message says what was expected."""


@dataclass(frozen=True)
class DataSetInfo:
    """What is published about a data set.

    Args:
        name: name on the command line.
        title: name in the paper.
        domain: what is in the pictures.
        classes: class names as in the authors' folders, or what the pictures show where there are none.
        source: project page, in words.
        licence: licence, as stated where it was found.
        licence_verified: whether the authors' own statement of the licence was read.
        citation: publication to cite.
        paper_counts: normal and anomalous images in table 6 of the AnomalyCLIP paper; None if not in it.
        default_split: section that the images go to unless told otherwise.
    """

    name: str
    title: str
    domain: str
    classes: tuple[str, ...]
    source: str
    licence: str
    citation: str
    licence_verified: bool = False
    paper_counts: tuple[int, int] | None = None
    default_split: str = "testing"

    @property
    def licence_text(self) -> str:
        """Licence with the remark that it was not verified, where that is so."""
        return self.licence if self.licence_verified else f"{self.licence} (not verified: read the project page)"


@dataclass(frozen=True)
class Entry:
    """One image.

    Args:
        image: the picture.
        image_label: 0 normal, 1 anomalous.
        class_name: class that results are grouped by.
        label: its mask, if there is one.
        rows: first row and row after the last, when only that part of image and mask is meant.
    """

    image: Path
    image_label: int
    class_name: str
    label: Path | None = None
    rows: tuple[int, int] | None = None


@dataclass
class Found:
    """What a reader found.

    Args:
        testing: images of the paper's protocol: the published test part, or everything where there are no parts.
        training: the published training part.
        notes: sentences about what does not fit.
    """

    testing: list[Entry] = field(default_factory=list)
    training: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataSet:
    """A data set that can be listed.

    Args:
        info: what is published about it.
        read: finds its images below a folder; raises :class:`LayoutError` where the layout is another.
    """

    info: DataSetInfo
    read: Callable[[Path], Found]


@dataclass(frozen=True)
class Counts:
    """Number of normal and anomalous images, and of those with a mask."""

    normal: int
    anomalous: int
    with_mask: int

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Counts:
        """Count entries."""
        anomalous = sum(entry.image_label for entry in entries)
        return cls(len(entries) - anomalous, anomalous, sum(entry.label is not None for entry in entries))


@dataclass(frozen=True)
class DataSetListing:
    """Images of a data set by section, ready to be written.

    Args:
        info: what is published about the data set.
        split: as which section the images of the paper's protocol are listed, or "original".
        sections: entries of "training", "validation" and "testing", as far as there are any.
        notes: sentences about what does not fit.
    """

    info: DataSetInfo
    split: str
    sections: Mapping[str, tuple[Entry, ...]]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, Counts]:
        """Numbers of images per section."""
        return {section: Counts.of(entries) for section, entries in self.sections.items()}

    @property
    def difference_from_paper(self) -> str | None:
        """One sentence when the numbers are not those of the paper, otherwise None."""
        if self.info.paper_counts is None:
            return None
        counts = Counts.of(self.sections.get("testing" if self.split == "original" else self.split, ()))
        if (counts.normal, counts.anomalous) == self.info.paper_counts:
            return None
        normal, anomalous = self.info.paper_counts
        return (
            f"The paper has {normal} normal and {anomalous} anomalous images of {self.info.title}, here are "
            f"{counts.normal} and {counts.anomalous}: results are not comparable with its tables without a remark."
        )

    def report(self) -> str:
        """Several lines for the terminal: numbers, difference from the paper, notes and licence."""
        lines = [
            f"{self.info.title}, {section}: {counts.normal} normal and {counts.anomalous} anomalous images, "
            f"{counts.with_mask} masks."
            for section, counts in self.counts.items()
        ]
        if self.difference_from_paper:
            lines.append(self.difference_from_paper)
        elif self.info.paper_counts:
            lines.append("These are the paper's numbers.")
        lines += [f"Note: {note}" for note in self.notes]
        lines.append(f"Licence: {self.info.licence_text}.")
        return "\n".join(lines)


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
    from monai_anomalyclip.data.frames import read_frame  # lists alone need neither
    from monai_anomalyclip.data.masks import read_mask

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
