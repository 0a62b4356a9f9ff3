# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_anomalyclip.data.naming import anonymous_names, names_of_files
from monai_anomalyclip.data.sources import FrameSource, NiftiSource, ReadOptions, Source
from monai_anomalyclip.writers.result_files import result_paths

ANONYMOUS = re.compile(r"(frame|volume)_[0-9a-f]{16}")


def sources(*files: str) -> list[Source]:
    return [
        NiftiSource(Path(file), file, ReadOptions()) if file.endswith(".nii") else FrameSource(Path(file), file)
        for file in files
    ]


def test_names_tell_the_kind_and_nothing_of_the_file() -> None:
    names = anonymous_names(sources("DOE^JOHN/a.png", "b.nii", "DOE^JOHN/c.png"))
    assert [name.rpartition("_")[0] for name in names] == ["frame", "volume", "frame"]
    for name in names:
        assert ANONYMOUS.fullmatch(name)
        assert result_paths("out", name, ["_mask.png"])
    assert len({name.rpartition("_")[2] for name in names}) == 3
    assert names == anonymous_names(sources("DOE^JOHN/a.png", "b.nii", "DOE^JOHN/c.png"))


def test_an_input_keeps_its_name_whatever_comes_and_goes() -> None:
    """Several runs write into one folder, each some of the inputs."""
    files = [f"{index:02}.{suffix}" for index in range(12) for suffix in ("png", "nii")]
    first = dict(zip(files[::2], anonymous_names(sources(*files[::2])), strict=True))
    random.Random(0).shuffle(files)
    remaining = [file for file in files if file != "04.png"]
    second = dict(zip(remaining, anonymous_names(sources(*remaining)), strict=True))
    assert all(second[file] == name for file, name in first.items() if file != "04.png")
    assert len({*second.values(), *first.values()}) == len(files)


def test_inputs_of_one_key_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    """The same relative path below two folders of one name."""
    twins = []
    for index, content in enumerate(("a", "b", "b")):
        path = tmp_path / str(index) / "scan.nii"
        path.parent.mkdir()
        path.write_text(content)
        twins.append(NiftiSource(path, "scan.nii", ReadOptions()))
    names = anonymous_names(twins)
    assert len(set(names)) == 3
    assert anonymous_names(twins[:2][::-1]) == names[:2][::-1]
    assert names[2] == f"{names[1]}-2"  # the same in all respects
    for name in names:
        assert result_paths("out", name, ["_mask.png"])


def test_names_of_files_are_their_relative_paths() -> None:
    files = [(PurePosixPath("only.png"), ".png"), (PurePosixPath("1.2.840.55.1/s 1.nii.gz"), ".nii.gz")]
    assert names_of_files(files, ["00000000", "11111111"]) == ["only", "1_2_840_55_1/s_1"]


def test_names_of_files_are_safe_and_never_collide() -> None:
    paths = [
        "a.png", "a.jpg", "a.nii.gz", "A.tif", "ä b.png", "ö b.png", f"{'x' * 200}1.png", f"{'x' * 200}2.png",
        "1.2.840.55.1/s.png", "1.2.840.55.2/s.png", "con/nul.png", "=cmd.png", "肺.png", "only.png", "-rf.png",
    ]  # fmt: skip
    suffixes = [re.search(r"(\.nii)?\.\w+$", path)[0] for path in paths]  # type: ignore[index]
    keys = [f"{index:08x}" for index in range(len(paths))]
    files = [(PurePosixPath(path), suffix) for path, suffix in zip(paths, suffixes, strict=True)]
    names = dict(zip(paths, names_of_files(files, keys), strict=True))
    assert len({name.lower() for name in names.values()}) == len(paths)
    for path, key in zip(paths[:4], keys, strict=False):
        assert names[path] == f"{path[0]}_{key}"
    for name in names.values():
        for part in name.split("/"):
            assert re.fullmatch(r"[^\W_][\w.-]*|_\w[\w.-]*", part)
            assert len(part) <= 100
            assert len(part.encode()) <= 180
            assert part.split(".")[0].lower() not in ("con", "nul")
    # A name depends on the file and its rivals, not on the order or number of other files.
    more = [(PurePosixPath("0.png"), ".png"), *reversed(files)]
    again = names_of_files(more, ["ffffffff", *reversed(keys)])
    assert dict(zip(reversed(paths), again[1:], strict=True)) == names


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("日本語 ünïcode name", "日本語_ünïcode_name"),
        ("a\u0308rger", "ärger"),  # decomposed, as macOS stores it
        ("हिन्दी", "हिन्दी"),  # with vowel signs, which are marks
        ("\u202egnp.evil", "gnp.evil"),  # written from right to left it looks like another type
        ("a\u00a0b\u2028c\u00bd", "a_b_c"),
        ("=SUM(ä1)", "SUM_ä1"),
        ("脳" * 100, "脳" * 53),  # three bytes each: endings have to fit, too
    ],
)
def test_letters_of_all_scripts_stay(file: str, name: str) -> None:
    assert names_of_files([(PurePosixPath(f"{file}.png"), ".png")], ["0"]) == [name]


def test_names_that_some_file_systems_take_for_one_are_told_apart() -> None:
    files = [(PurePosixPath(f"{stem}.png"), ".png") for stem in ("STRASSE", "straße", "ä", "a\u0308", "Ä")]
    assert names_of_files(files, list("abcde")) == ["STRASSE_a", "straße_b", "ä_c", "ä_d", "Ä_e"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12), max_size=8))
def test_whatever_files_are_called_their_results_stay_in_the_folder_and_apart(texts: list[str]) -> None:
    files = [(PurePosixPath("sub", f"{text}.png"), ".png") for text in texts]
    names = names_of_files(files, ["0a1b2c3d"] * len(files))  # as if all keys were the same
    assert len({name.lower() for name in names}) == len(files)
    for name in names:
        (path,) = result_paths("out", name, ["_mask.png"])
        assert path.parent == Path("out/sub")
