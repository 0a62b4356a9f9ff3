# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The part of the packaging that pyproject.toml cannot say: folders beside the package, and links of the README."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

BESIDE = ("bundles.anomalyclip", "bundles.anomalyclip_demo", "bundles.own_normals", "configs")

# Address below which the repository's files lie, with a "/" at its end. As long as there is none, the links of the
# package's page to files of the repository are plain text, for there they would lead nowhere.
SOURCE = ""


def package_page() -> str:
    """README.md with no link that is relative to the repository."""
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    if SOURCE:
        return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", rf"]({SOURCE}\1)", text)
    text = re.sub(r"^!\[[^\]]*\]\((?!\w+:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)[^)\s]+\)", r"\1", text)


setup(
    packages=[
        *find_namespace_packages(include=["monai_anomalyclip*"]),
        *(f"monai_anomalyclip.{place}" for place in BESIDE),
    ],
    package_dir={f"monai_anomalyclip.{place}": place.replace(".", "/") for place in BESIDE},
    long_description=package_page(),
    long_description_content_type="text/markdown",
)
