# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""requirements/minimum.txt, which `make test-minimum` installs, against the floors of pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = ("export", "federated", "fullshot", "notebooks", "reference", "video")


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
