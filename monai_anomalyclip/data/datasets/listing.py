# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a data set, what a reader found of it, and the list made of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Counts", "DataSet", "DataSetInfo", "DataSetListing", "Entry", "Found", "LayoutError"]


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
