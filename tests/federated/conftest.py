# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Sites with few phantoms each, on one copy of the demonstration bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.federated import SiteSettings

PICTURES = {"large": 24, "small": 8}

Describe = Callable[[str], SiteSettings]


@pytest.fixture(scope="session")
def bundle(copy_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the sites: without validation, so that rounds are short."""
    folder = tmp_path_factory.mktemp("sites")
    for number, (name, pictures) in enumerate(PICTURES.items()):
        write_datalist(folder / name, training=pictures, validation=0, testing=8, seed=number, progress=False)
    return folder


@pytest.fixture
def describe(bundle: Path, images: Path, tmp_path: Path) -> Describe:
    def settings(name: str) -> SiteSettings:
        return SiteSettings(bundle=bundle, dataset_dir=images / name, output_dir=tmp_path / name)

    return settings
