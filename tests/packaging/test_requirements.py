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
"""requirements/minimum.txt, which `make test-minimum` installs, against the floors of pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = ("export", "fullshot", "notebooks", "tiff", "video")


def floor(requirement: Requirement) -> Version:
    (lowest,) = (item for item in requirement.specifier if item.operator == ">=")
    return Version(lowest.version)


def test_every_requirement_has_a_floor_and_its_pin() -> None:
    wanted = [*PROJECT["dependencies"]]
    for extra in EXTRAS:
        wanted += PROJECT["optional-dependencies"][extra]
    floors = {item.name: floor(item) for item in map(Requirement, wanted)}
    lines = (REPOSITORY / "requirements" / "minimum.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name: Version(version) for name, version in pins.items()} == floors


def test_the_makefile_uses_it() -> None:
    assert re.search(
        r"^test-minimum:\n(\t.*\n)*\t.* -c requirements/minimum\.txt ", (REPOSITORY / "Makefile").read_text(), re.M
    )
