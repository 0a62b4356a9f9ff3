# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration bundle with prompts that were not tuned, small inputs, and one of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo import demo_network

BUNDLE = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts that fit the demonstration bundle."""
    path = tmp_path_factory.mktemp("prompts") / "model.pt"
    demo_network(deep_prompt_depth=4).save_prompts(path)
    return path


@pytest.fixture(scope="session")
def options(prompts: Path) -> list[str]:
    """Options of `predict` that every run needs."""
    return ["--bundle", str(BUNDLE), "--prompts", str(prompts), "--device", "cpu"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A folder with one picture."""
    folder = tmp_path / "QUIMBY_ROSAMUND"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "rosamund.png")
    return folder


@pytest.fixture
def study(picture: Path, phantoms: ModuleType) -> Path:
    """The picture, a volume, two CT series, a localizer, a film, and a file that cannot be read."""
    volume = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1, 4, 1])), picture / "quimby.nii.gz")
    phantoms.make_series(picture / "1.2.840", count=3, size=(32, 40))
    phantoms.make_series(picture / "1.2.840", count=3, size=(32, 40), tilt=15, seed="tilt")
    phantoms.make_series(picture / "1.2.840", count=1, size=(32, 40), localizer=True, seed="loc")
    phantoms.make_cine(picture / "us", count=3, size=(32, 40))
    (picture / "quimby.png").write_text("no picture")
    return picture


@pytest.fixture
def predict(options: list[str], tmp_path: Path) -> Callable[..., int]:
    """Run `predict` with results in ``out`` below the test's folder."""

    def run(*arguments: Any, out: Path | None = None) -> int:
        return main(["predict", *map(str, arguments), "-o", str(out or tmp_path / "out"), *options])

    return run
