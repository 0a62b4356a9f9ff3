# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_anomalyclip.bundles import shipped
from monai_anomalyclip.bundles.shipped import copy_bundle, inference_config, literal_path, shipped_folder

REPOSITORY = Path(__file__).parents[2]


def test_folder_here_then_of_the_package_then_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_folder("configs") == REPOSITORY / "configs"
    package = tmp_path / "site" / "monai_anomalyclip"
    (package / "configs").mkdir(parents=True)
    (package.parent / "configs").mkdir()
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    assert shipped_folder("configs") == package / "configs"
    (tmp_path / "configs").mkdir()
    assert shipped_folder("configs") == Path("configs")
    with pytest.raises(FileNotFoundError, match="There is no folder 'bundles/absent'"):
        shipped_folder("bundles/absent")


def test_copy_holds_what_was_shipped_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "configs/train.json",
        "docs/README.md",
        "models/README.md",
        "models/model.pt",
        "runs/x",
        "data/y",
        "LICENSE",
    ):
        path = tmp_path / "bundles" / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    copy_bundle("mine", tmp_path / "copy")
    copied = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert copied == {"configs/train.json", "docs/README.md", "models/README.md", "LICENSE"}


def test_the_bundle_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text("{}")
    assert inference_config(tmp_path) == tmp_path / "configs" / "inference.json"


def test_without_a_name_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert inference_config(None).parts[-3:] == ("anomalyclip", "configs", "inference.json")
    own = tmp_path / "bundles" / "anomalyclip" / "configs"
    own.mkdir(parents=True)
    (own / "inference.json").write_text("{}")
    assert inference_config(None).absolute() == own / "inference.json"


@pytest.mark.parametrize("name", ["anomalyclip", "anomalyclip_demo"])
def test_shipped_name_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = inference_config(Path(name))
    assert config.is_file()
    assert config.parts[-3:] == (name, "configs", "inference.json")


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bundle at"):
        inference_config(tmp_path)


@pytest.mark.parametrize("name", ["plain", "a#b", "$x", "@id", "%f", "it's", 'q"', "back\\slash", "ü ", "new\nline"])
def test_any_path_survives_the_parser(name: str) -> None:
    parser = ConfigParser({"path": literal_path(Path("/data") / name)})
    assert parser.get_parsed_content("path") == f"/data/{name}"


@pytest.mark.parametrize("content", ["[]", "{", "1"])
def test_damaged_metadata_are_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text("{}")
    (tmp_path / "configs" / "metadata.json").write_text(content)
    with pytest.raises(ValueError, match=r"metadata\.json of the bundle .* is no JSON object"):
        inference_config(tmp_path)
