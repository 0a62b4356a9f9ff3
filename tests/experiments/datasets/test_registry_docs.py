# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The commands, the table and the Python of docs/data_sets.md, on generated trees."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import SPLITS, data_sets

PAGE = (Path(__file__).parents[3] / "docs" / "data_sets.md").read_text()

Planted = Callable[[Path, str], object]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line]


def parsed(command: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=["monai-anomalyclip"])
    parser.add_argument("command", choices=["datalist"])
    parser.add_argument("name", choices=data_sets())
    parser.add_argument("root", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--overwrite", action="store_true")
    return parser.parse_args(shlex.split(command))


def make_tree(name: str, root: Path, planted: Planted, picture: Callable[..., None]) -> None:
    if root.suffix == ".csv":
        (table,) = (block for block in blocks("text") if block.startswith("image,label"))
        root.parent.mkdir(parents=True)
        root.write_text(table)
        for line in table.splitlines()[1:]:
            image, mask = line.split(",")[:2]
            picture(root.parent / image)
            if mask:
                picture(root.parent / mask, mask=True)
    elif name == "folder":
        (tree,) = (block for block in blocks("text") if block.startswith("data/mine"))
        for file in tree.split():
            picture(Path(file), mask="masks" in file)
    elif name == "sdd":
        picture(root / "kos01/Part0.jpg", size=(10, 24))
        picture(root / "kos01/Part0_label.bmp", mask=True, size=(10, 24))
    else:
        planted(root, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    planted: Planted,
    picture: Callable[..., None],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = parsed(command)
    make_tree(arguments.name, arguments.root, planted, picture)
    assert main(shlex.split(command)[1:]) == 0
    assert data_sets()[arguments.name].info.title in capsys.readouterr().out
    content = json.loads(arguments.output.read_text())
    sections = [section for section in ("training", "validation", "testing") if section in content]
    assert sections
    for section in sections:
        assert load_datalist(arguments.output, section)


def test_every_data_set_has_a_command() -> None:
    assert {parsed(command).name for command in COMMANDS} == set(data_sets())
    assert {parsed(command).split for command in COMMANDS} == {None, "training", "validation", "original"}


def test_table_says_what_the_code_says() -> None:
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z0-9][a-z0-9-]*)` \|.* \|$", PAGE, re.MULTILINE)}
    rows = {name: row for name, row in rows.items() if name not in SPLITS}
    assert set(rows) == set(data_sets())
    for name, row in rows.items():
        _, _, title, images, source, licence, _ = (cell.strip() for cell in row.split("|"))
        info = data_sets()[name].info
        if name == "folder":
            continue
        assert info.title.split()[0].rstrip(":") in title
        assert images == "{} + {}".format(*info.paper_counts or ())
        assert source.split(",")[0] in info.source
        unread = not info.licence_verified and info.licence != "none found"
        assert licence == info.licence + (" (not verified)" if unread else "")
        if len(info.classes) > 2:
            assert f"{len(info.classes)} classes" in title


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Planted) -> None:
    monkeypatch.chdir(tmp_path)
    planted(tmp_path / "data/CVC-ClinicDB", "cvc-clinicdb")
    (example,) = blocks("python")
    exec(compile(example, "docs/data_sets.md", "exec"), {})
    assert len(load_datalist("data/clinicdb.json", "testing")) == 3
