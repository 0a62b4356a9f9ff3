# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which images full-shot methods learn from, and datalists from which none can learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.experiments.fullshot import classes_of

Entries = list[tuple[str, int | None, str | None]]


def datalist(folder: Path, **sections: Entries) -> Path:
    """Lists of (file name, image_label, class), with empty files for the images."""
    content: dict[str, list[dict[str, Any]]] = {}
    for section, entries in sections.items():
        content[section] = []
        for name, label, of_class in entries:
            (folder / name).touch()
            entry: dict[str, Any] = {"image": name, "class": of_class, "image_label": label}
            if label is None:
                entry["label"] = name
            content[section].append({key: value for key, value in entry.items() if value is not None})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def names(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["image"]).name for item in items]


def test_each_class_learns_from_its_own_normal_images(tmp_path: Path) -> None:
    path = datalist(
        tmp_path,
        training=[("a", 0, "nut"), ("b", 0, "pill"), ("c", 1, "nut"), ("d", 0, "nut"), ("e", None, "nut")],
        testing=[("f", 1, "pill"), ("g", 0, "nut"), ("h", 1, "nut"), ("i", 0, "pill")],
        validation=[("j", 0, "nut")],
    )
    pill, nut = classes_of(path)
    assert (pill.name, nut.name) == ("pill", "nut")
    assert names(nut.normal) == ["a", "d"]  # not the anomalous one, nor one of which only a mask is known
    assert names(nut.testing) == ["g", "h"]
    assert names(pill.normal) == ["b"]
    assert names(pill.testing) == ["f", "i"]
    (other,) = classes_of(path, "validation")
    assert (other.name, names(other.normal), names(other.testing)) == ("nut", ["a", "d"], ["j"])


def test_images_without_a_class_are_one(tmp_path: Path) -> None:
    (entry,) = classes_of(datalist(tmp_path, training=[("a", 0, None)], testing=[("b", 0, None), ("c", 1, None)]))
    assert (entry.name, names(entry.normal), names(entry.testing)) == ("all", ["a"], ["b", "c"])


def test_a_class_without_normal_images_is_told(tmp_path: Path) -> None:
    path = datalist(
        tmp_path,
        training=[("a", 0, "nut"), ("b", 1, "pill")],
        testing=[("c", 1, "nut"), ("d", 1, "pill"), *((f"x{n}", 0, f"class {n}") for n in range(6))],
    )
    with pytest.raises(
        ValueError,
        match=r"no normal images under 'training' for pill, class 0, class 1, class 2, class 3 and 2 more: .*--split "
        "original",
    ):
        classes_of(path)


def test_testing_on_what_was_learnt_is_refused(tmp_path: Path) -> None:
    path = datalist(
        tmp_path,
        training=[("a", 0, "nut"), ("b", 0, "nut"), ("c", 1, "nut")],
        testing=[("b", 0, "nut"), ("c", 1, "nut")],  # c was not learnt from
    )
    with pytest.raises(ValueError, match="1 images of 'testing' are also among the normal images of 'training'"):
        classes_of(path)


def test_a_missing_list_is_told(tmp_path: Path) -> None:
    path = datalist(tmp_path, training=[("a", 0, "nut")])
    with pytest.raises(ValueError, match="no entries under 'testing'"):
        classes_of(path)
