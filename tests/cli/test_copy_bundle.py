# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.copy_bundle import NAMES

BUNDLES = Path(__file__).parents[2] / "bundles"


def test_names_are_the_bundles() -> None:
    assert set(NAMES) == {path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json")}


@pytest.mark.parametrize("name", NAMES)
def test_copy(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "mine"
    assert main(["copy-bundle", name, str(folder)]) == 0
    assert f"--bundle_root {folder}" in capsys.readouterr().out
    for path in (BUNDLES / name / "configs").iterdir():
        assert (folder / "configs" / path.name).read_bytes() == path.read_bytes()
    assert not list((folder / "models").glob("*.pt"))
    assert main(["copy-bundle", name, str(folder)]) == 1
    assert "exists: name a folder that does not" in capsys.readouterr().err
