# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs of the result writer; the modules beside this file can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A picture and a volume, in a folder that is called after somebody."""
    folder = tmp_path / "DOE_JOHN" / "sub"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "doe.png")
    volume = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1, 4, 1])), folder / "john.nii.gz")
    return tmp_path / "DOE_JOHN"
