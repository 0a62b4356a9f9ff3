# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""requirements/minimum.txt, which `make test-minimum` installs, against the floors of pyproject.toml."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = (
    "app", "cluster", "dicomweb", "dimse", "export", "federated", "fullshot", "label", "notebooks", "openvino",
    "parquet", "reference", "video",
)  # fmt: skip


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


def test_extra_all_is_every_extra_of_users() -> None:
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert everything.extras == set(EXTRAS)


def test_python_ends_where_a_dependency_ends() -> None:
    """Classifiers name the versions that are admitted, and no installed dependency asks for less."""
    admitted = SpecifierSet(PROJECT["requires-python"])
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert named == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in admitted]
    for item in map(Requirement, PROJECT["dependencies"]):
        theirs = SpecifierSet(metadata.metadata(item.name).get("Requires-Python") or "")
        assert max(map(Version, named)) in theirs, item.name


def test_the_makefile_uses_it() -> None:
    assert re.search(
        r"^test-minimum:\n(\t.*\n)*\t.* -c requirements/minimum\.txt ", (REPOSITORY / "Makefile").read_text(), re.M
    )
