# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The part of the packaging that pyproject.toml cannot say: folders beside the package go into it."""

from __future__ import annotations

from setuptools import find_namespace_packages, setup

BESIDE = ("bundles.anomalyclip", "bundles.anomalyclip_demo", "configs")

setup(
    packages=[
        *find_namespace_packages(include=["monai_anomalyclip*"]),
        *(f"monai_anomalyclip.{place}" for place in BESIDE),
    ],
    package_dir={f"monai_anomalyclip.{place}": place.replace(".", "/") for place in BESIDE},
)
