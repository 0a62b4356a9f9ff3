# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every data set that can be listed, by its name, and its datalist."""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import DataSet, DataSetListing, LayoutError, folders
from monai_anomalyclip.data.datasets.own_data import OWN_DATA

__all__ = [
    "SPLITS",
    "data_sets",
    "make_datalist",
]

_PAPERS = "monai_anomalyclip.experiments.datasets.registry"

SPLITS = ("training", "validation", "testing", "original")
"""As which section the images of the paper's protocol are listed; "original" keeps the published parts."""

_LOOK_INTO = 20


def data_sets() -> dict[str, DataSet]:
    """Every data set that can be listed, by its name on the command line.

    The paper's are found by name, because the experiments are a guest of this package and no part of it.
    """
    papers = import_module(_PAPERS).DATA_SETS
    return {**papers, OWN_DATA.info.name: OWN_DATA}


def make_datalist(name: str, root: str | os.PathLike[str], *, split: str | None = None) -> DataSetListing:
    """List the images of a data set with their masks, labels and classes.

    The paper tunes and evaluates on the same part of a data set, its test part (never both on the same data set), or
    on everything where there are no parts. ``split`` says as which section of the datalist these images go.

    Args:
        name: one of :func:`data_sets`, in any case.
        root: folder that the data set was unpacked into; for "folder" also a CSV file.
        split: "training" to tune on these images, "testing" to evaluate on them, "validation", or "original" for the
            published training and test parts; default is "training" for the auxiliary mix and "testing" for others.

    Raises:
        FileNotFoundError: the folder is missing.
        LayoutError: it is not laid out as published, or holds no images; the message says what was expected.
        ValueError: the name or the split is not known, or files do not fit together.
    """
    known = data_sets()
    data_set = known.get(name.casefold())
    if data_set is None:
        raise ValueError(f"There is no data set '{name}': choose one of {', '.join(known)}.")
    info = data_set.info
    split = info.default_split if split is None else split
    if split not in SPLITS:
        raise ValueError(f"There is no split '{split}': choose one of {', '.join(SPLITS)}.")
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder '{root}': give the one that {info.title} was unpacked into.")
    if root.is_file() and data_set is not OWN_DATA:
        raise LayoutError(f"'{root}' is a file: give the folder that {info.title} was unpacked into.")
    try:
        found = data_set.read(root)
    except LayoutError as error:
        raise LayoutError(
            f"'{root}' is not laid out as {info.title}: expected {error}{_hint(data_set, root)}"
        ) from error
    if split == "original":
        sections = {"training": tuple(found.training), "testing": tuple(found.testing)}
        sections = {section: entries for section, entries in sections.items() if entries}
    else:
        sections = {split: tuple(found.testing)} if found.testing else {}
    if not sections:
        raise LayoutError(f"There are no images of {info.title} in '{root}'.")
    return DataSetListing(info, split, sections, tuple(found.notes))


def _hint(data_set: DataSet, root: Path) -> str:
    """What is there instead, and which folders within have the layout, preferably that of its name."""
    inside = folders(root) if root.is_dir() else []
    alike = []
    for folder in inside[:_LOOK_INTO]:
        with contextlib.suppress(OSError, ValueError):
            data_set.read(folder)
            alike.append(folder.name)
    own = [name for name in alike if _letters(data_set.info.name) in _letters(name)]
    if len(alike) == 1 or own:
        return f"; its folder '{(own or alike)[0]}' is laid out like that: give that one if it is the data set."
    if alike:
        return f"; its folders {', '.join(alike)} are laid out like that: give the one of {data_set.info.title}."
    shown = ", ".join(folder.name for folder in inside[:_LOOK_INTO])
    return f"; it holds {f'the folders {shown}' if shown else 'no folders'}."


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
