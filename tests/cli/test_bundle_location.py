# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_anomalyclip.cli.bundle_location import inference_config, literal_path


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


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bundle at"):
        inference_config(tmp_path)


@pytest.mark.parametrize("name", ["plain", "a#b", "$x", "@id", "%f", "it's", 'q"', "back\\slash", "ü ", "new\nline"])
def test_any_path_survives_the_parser(name: str) -> None:
    parser = ConfigParser({"path": literal_path(Path("/data") / name)})
    assert parser.get_parsed_content("path") == f"/data/{name}"
