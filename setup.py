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
"""The part of the packaging that pyproject.toml cannot say: folders beside the package go into it."""

from __future__ import annotations

from setuptools import find_namespace_packages, setup

BESIDE = ("bundles", "configs")

setup(
    packages=[
        *find_namespace_packages(include=["monai_anomalyclip*"]),
        *(f"monai_anomalyclip.{name}" for name in BESIDE),
    ],
    package_dir={f"monai_anomalyclip.{name}": name for name in BESIDE},
)
