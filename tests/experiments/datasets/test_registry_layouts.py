# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.data import LoadInputd, LoadMaskd, load_datalist
from monai_anomalyclip.data.datasets import (
    SPLITS,
    LayoutError,
    data_sets,
    make_datalist,
    write_datalist,
)

PAPER = {  # table 6 of the paper: normal, anomalous
    "mvtec": (467, 1258), "visa": (962, 1200), "mpdd": (176, 282), "btad": (451, 290), "sdd": (181, 74),
    "dagm": (6996, 1054), "dtd-synthetic": (357, 947), "isic": (0, 379), "cvc-clinicdb": (0, 612),
    "cvc-colondb": (0, 380), "kvasir": (0, 1000), "endo": (0, 200), "tn3k": (0, 614), "headct": (100, 100),
    "brainmri": (98, 155), "br35h": (1500, 1500), "covid-19": (1341, 219),
}  # fmt: skip
MIX = {"colondb-endo": (163, 380)}

Planted = Callable[[Path, str], dict[str, set[tuple[str, str | None, int, str]]]]


def found(entries: object, root: Path) -> set[tuple[str, str | None, int, str]]:
    return {
        (
            entry.image.relative_to(root).as_posix(),
            entry.label and entry.label.relative_to(root).as_posix(),
            entry.image_label,
            entry.class_name,
        )
        for entry in entries  # type: ignore[attr-defined]
    }


def test_published_layout(layout: str, planted: Planted, tmp_path: Path) -> None:
    root = tmp_path / "root"
    expected = planted(root, layout)
    listing = make_datalist(layout, root, split="original")
    assert {section: found(entries, root) for section, entries in listing.sections.items()} == {
        section: entries for section, entries in expected.items() if entries
    }
    for split in ("training", "validation", "testing"):
        listing = make_datalist(layout.upper(), str(root), split=split)
        assert list(listing.sections) == [split]
        assert found(listing.sections[split], root) == expected["testing"]
        assert len(listing.sections[split]) == len(expected["testing"])
        assert (listing.difference_from_paper is None) == (layout == "folder")
    default = "training" if layout == "colondb-endo" else "testing"
    assert list(make_datalist(layout, root).sections) == [default]


def test_datalist_loads_with_its_masks(layout: str, planted: Planted, tmp_path: Path) -> None:
    root = tmp_path / "root"
    expected = planted(root, layout)
    file = write_datalist(make_datalist(layout, root, split="testing"), root / "datalist.json")
    items = load_datalist(file, "testing")
    assert len(items) == len(expected["testing"])
    for item in items:
        loaded = LoadMaskd()(LoadInputd("image")(item))
        assert loaded["label"].shape[1:] == loaded["image"].shape[1:]
        if item.get("label"):
            # The square that was drawn; JPEG may blur its edge.
            assert abs(int(loaded["label"].sum()) - 12) <= 4
        assert loaded["image_label"] == item["image_label"]


def test_wrong_folders_are_explained(layout: str, planted: Planted, tmp_path: Path) -> None:
    root = tmp_path / "parent" / "root"
    planted(root, layout)
    with pytest.raises(
        LayoutError, match=r"not laid out as .*: expected .*; its folder 'root' is laid out like that: give that one"
    ):
        make_datalist(layout, tmp_path / "parent")
    (tmp_path / "empty" / "other").mkdir(parents=True)
    with pytest.raises(LayoutError, match=r"expected .*; it holds the folders other"):
        make_datalist(layout, tmp_path / "empty")
    with pytest.raises(LayoutError, match="it holds no folders"):
        make_datalist(layout, tmp_path / "empty" / "other")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        make_datalist(layout, tmp_path / "absent")


def test_every_data_set_of_the_paper_is_there() -> None:
    infos = {name: data_set.info for name, data_set in data_sets().items()}
    assert {name: info.paper_counts for name, info in infos.items() if info.paper_counts} == PAPER | MIX
    assert set(infos) == {*PAPER, *MIX, "folder"}
    for name, info in infos.items():
        assert info.name == name
        assert info.source
        assert info.licence
        assert info.citation
        assert info.licence_verified or "not verified" in info.licence_text
    assert [len(infos[name].classes) for name in ("mvtec", "visa", "mpdd", "btad", "dagm", "dtd-synthetic")] == [
        15, 12, 6, 3, 10, 12,
    ]  # fmt: skip


def test_unknown_names_and_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data set 'imagenet': choose one of mvtec, .*folder"):
        make_datalist("imagenet", tmp_path)
    with pytest.raises(ValueError, match="no split 'test': choose one of training, validation, testing, original"):
        make_datalist("mvtec", tmp_path, split="test")
    assert SPLITS == ("training", "validation", "testing", "original")
    (tmp_path / "a.zip").touch()
    with pytest.raises(LayoutError, match="is a file: give the folder"):
        make_datalist("mvtec", tmp_path / "a.zip")


def test_the_folder_that_is_named_like_the_set_is_recommended(planted: Planted, tmp_path: Path) -> None:
    """The published folder of polyp sets holds several of one layout."""
    for name in ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "Kvasir"):
        planted(tmp_path / "sets" / name, "cvc-colondb")
    with pytest.raises(LayoutError, match=r"its folder 'CVC-ColonDB' is laid out like that"):
        make_datalist("cvc-colondb", tmp_path / "sets")
    with pytest.raises(LayoutError, match=r"folders CVC-300, CVC-ClinicDB, CVC-ColonDB, Kvasir are laid out like that"):
        make_datalist("endo", tmp_path / "sets")
