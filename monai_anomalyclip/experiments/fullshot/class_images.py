# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which images a full-shot method learns from and is tested on, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_anomalyclip.data import load_datalist

__all__ = ["ClassImages", "classes_of"]

_LISTED = 5


@dataclass(frozen=True)
class ClassImages:
    """The entries of one class.

    Attributes:
        name: of the class.
        normal: its normal images under ``training``.
        testing: all its images in the tested section.
    """

    name: str
    normal: list[dict[str, Any]]
    testing: list[dict[str, Any]]


def classes_of(datalist: str | Path, testing_section: str = "testing") -> list[ClassImages]:
    """Sort a datalist's images by ``class``, in the order in which the tested section names them.

    Only entries of ``training`` whose ``image_label`` is 0 are learnt from. Entries without a class are of class "all".

    Args:
        datalist: JSON file; see :func:`~monai_anomalyclip.data.load_datalist`.
        testing_section: name of the list to test on.

    Raises:
        FileNotFoundError: when the datalist or a file it names is missing.
        ValueError: when a list is missing or malformed, a class has no normal images to learn from, or an image is both
            learnt from and tested on.
    """
    tested = load_datalist(datalist, testing_section)
    normal = [item for item in load_datalist(datalist, "training") if item.get("image_label") == 0]
    classes = [
        ClassImages(name, [item for item in normal if _class(item) == name], own)
        for name in dict.fromkeys(map(_class, tested))
        if (own := [item for item in tested if _class(item) == name])
    ]
    unknown = [entry.name for entry in classes if not entry.normal]
    if unknown:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise ValueError(
            f"The datalist '{datalist}' has no normal images under 'training' for {', '.join(unknown[:_LISTED])}{more}"
            ": full-shot methods learn from each tested class's own normal images, which "
            "monai-anomalyclip datalist --split original lists."
        )
    seen = {item["image"] for entry in classes for item in entry.normal}
    leaked = [item for item in tested if item["image"] in seen]
    if leaked:
        raise ValueError(
            f"{len(leaked)} images of '{testing_section}' are also among the normal images of 'training' in the "
            f"datalist '{datalist}': a method must not be tested on what it has learnt from."
        )
    return classes


def _class(item: dict[str, Any]) -> str:
    name = item.get("class")
    return "all" if name is None else str(name)
