# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.data import entries_digest, load_datalist


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("bottle/a.png", "bottle/b.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write(folder: Path, content: Any) -> Path:
    path = folder / "datalist.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def one(folder: Path, **entry: Any) -> Path:
    return write(folder, {"training": [{"image": "bottle/a.png", "image_label": 0}, entry]})


def test_paths_are_absolute_and_the_rest_is_untouched(folder: Path) -> None:
    entry = {"image": "bottle/b.png", "label": "masks/b.png", "image_label": 1, "class": "glass", "fold": 2}
    items = load_datalist(one(folder, **entry))
    assert items == [
        {"image": str(folder / "bottle/a.png"), "image_label": 0},
        {**entry, "image": str(folder / "bottle/b.png"), "label": str(folder / "masks/b.png")},
    ]


def test_class_that_is_also_a_folder_stays_a_word(folder: Path) -> None:
    items = load_datalist(one(folder, image="bottle/b.png", image_label=0, **{"class": "bottle"}))
    assert items[1]["class"] == "bottle"


def test_relative_datalist_gives_absolute_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {"training": [{"image": "bottle/a.png", "image_label": 0}]})
    monkeypatch.chdir(folder)
    for given in ("datalist.json", Path("datalist.json")):
        assert load_datalist(given)[0]["image"] == str(folder / "bottle/a.png")
    assert load_datalist("datalist.json", base_dir=".")[0]["image"] == str(folder / "bottle/a.png")


def test_absolute_paths_and_another_base(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("lists")
    entries = [{"image": "a.png", "image_label": 0}, {"image": str(folder / "bottle/b.png"), "image_label": 0}]
    items = load_datalist(write(elsewhere, {"training": entries}), base_dir=folder / "bottle")
    assert [item["image"] for item in items] == [str(folder / "bottle" / name) for name in ("a.png", "b.png")]


def test_sections(folder: Path) -> None:
    entries = [{"image": "bottle/a.png", "image_label": 0}]
    path = write(folder, {"name": "set", "training": entries, "testing": entries * 2, "validation": []})
    assert len(load_datalist(path)) == 1
    assert len(load_datalist(path, "testing")) == 2
    for absent in ("validation", "test"):
        assert load_datalist(path, absent, required=False) == []
        with pytest.raises(ValueError, match=rf"no entries under '{absent}' \(it has: name, training, testing"):
            load_datalist(path, absent)


@pytest.mark.parametrize("missing", [None, ""])
def test_mask_may_be_missing_where_the_label_is_known(folder: Path, missing: str | None) -> None:
    items = load_datalist(one(folder, image="bottle/b.png", label=missing, image_label=1))
    assert not items[1].get("label")
    with pytest.raises(ValueError, match=r"Entry 1 .* neither a label \(mask\) nor an image_label"):
        load_datalist(one(folder, image="bottle/b.png", label=missing))


def test_mask_alone_is_enough(folder: Path) -> None:
    assert "image_label" not in load_datalist(one(folder, image="bottle/b.png", label="masks/b.png"))[1]


@pytest.mark.parametrize("key", ["image", "label"])
def test_missing_files_are_named_before_anything_runs(folder: Path, key: str) -> None:
    entry = {"image": "bottle/b.png", "label": "masks/b.png", "image_label": 1} | {key: "gone/c.png"}
    with pytest.raises(FileNotFoundError, match=rf"Entry 1 of 'training' .* missing {key}: '.*gone/c\.png'"):
        load_datalist(one(folder, **entry))
    assert load_datalist(one(folder, **entry), check_files=False)[1][key] == str(folder / "gone" / "c.png")


@pytest.mark.parametrize("label", [2, -1, 0.5, "1", None, [1]])
def test_labels_other_than_0_and_1_are_refused(folder: Path, label: Any) -> None:
    with pytest.raises(ValueError, match=r"Entry 1 .* has image_label .*, not 0 or 1"):
        load_datalist(one(folder, image="bottle/b.png", image_label=label))


@pytest.mark.parametrize("image", [None, "", 5, ["bottle/a.png"]])
def test_image_must_be_one_path(folder: Path, image: Any) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"Entry 1 .*image"):
        load_datalist(one(folder, image=image, image_label=0))


@pytest.mark.parametrize("label", [5, True, ["masks/b.png"]])
def test_a_label_must_be_one_path(folder: Path, label: Any) -> None:
    with pytest.raises(
        ValueError, match=r"Entry 1 of 'training' .* has a label that is no path: " + re.escape(repr(label))
    ):
        load_datalist(one(folder, image="bottle/b.png", label=label, image_label=1))


def test_entry_without_image(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"Entry 1 of 'training' .* has no image"):
        load_datalist(one(folder, image_label=0))


@pytest.mark.parametrize("content", [[], "[1, 2]", {"training": {"image": "a.png"}}, {"training": None}, "3"])
def test_malformed_sections(folder: Path, content: Any) -> None:
    with pytest.raises(ValueError, match="has no entries under 'training'"):
        load_datalist(write(folder, content))


def test_entry_that_is_no_object(folder: Path) -> None:
    path = write(folder, {"training": [{"image": "bottle/a.png", "image_label": 0}, "bottle/b.png"]})
    with pytest.raises(ValueError, match="Entry 1 "):
        load_datalist(path)


def test_no_file_and_no_json(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no datalist at '.*none\.json': give --dataset_dir"):
        load_datalist(folder / "none.json")
    with pytest.raises(FileNotFoundError, match="no datalist at"):
        load_datalist(folder)
    with pytest.raises(ValueError, match=r"'.*datalist\.json' is not valid JSON: .*line 1"):
        load_datalist(write(folder, '{"training": ['))


def test_encodings(folder: Path) -> None:
    (folder / "bottle" / "größe.png").write_bytes(b"")
    path = folder / "datalist.json"
    text = json.dumps({"training": [{"image": "bottle/größe.png", "image_label": 0}]}, ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig"):  # the latter is what editors on Windows write
        path.write_text(text, encoding=encoding)
        assert load_datalist(path)[0]["image"] == str(folder / "bottle" / "größe.png")
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        load_datalist(path)


def test_digest_tells_contents_apart_and_does_not_look_at_names(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        for name, content in (("a.png", b"one"), ("b.png", b"two"), ("b_mask.png", b"mask")):
            (tmp_path / folder / (name if folder == "old" else f"other {name}")).write_bytes(content)
    old, new = tmp_path / "old", tmp_path / "new"
    entries: list[dict[str, Any]] = [
        {"image": str(old / "a.png"), "image_label": 0, "class": "colon"},
        {"image": old / "b.png", "label": str(old / "b_mask.png"), "image_label": 1},
    ]
    moved = [
        {**entries[0], "image": new / "other a.png"},
        {**entries[1], "image": str(new / "other b.png"), "label": new / "other b_mask.png"},
    ]
    digest = entries_digest(entries)
    assert digest == entries_digest(moved)
    assert digest.startswith("2 images, ")
    others = [
        entries[:1],
        entries[::-1],
        [entries[0], {**entries[1], "image": old / "a.png"}],
        [entries[0], {**entries[1], "label": old / "b.png"}],
        [entries[0], {**entries[1], "image_label": 0}],
        [{**entries[0], "class": "brain"}, entries[1]],
    ]
    digests = {digest, *map(entries_digest, others)}
    assert len(digests) == 7
    status = (old / "b_mask.png").stat()
    (old / "b_mask.png").write_bytes(b"msak")  # corrected under the same name, at equal size and times
    os.utime(old / "b_mask.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert entries_digest(entries) not in digests
    (old / "b_mask.png").unlink()
    with pytest.raises(FileNotFoundError):
        entries_digest(entries)
