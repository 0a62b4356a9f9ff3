# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from monai_anomalyclip import reference


@pytest.mark.parametrize("name", reference.__all__)
def test_public_names_are_no_modules(name: str) -> None:
    """A module of the name would take its place as soon as it is imported."""
    assert name not in {module.name for module in pkgutil.iter_modules(reference.__path__)}
    assert getattr(reference, name).__name__ == name


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Reference'"):
        _ = reference.Reference


def test_calibration_needs_no_encoder() -> None:
    script = (
        "import sys; from monai_anomalyclip.reference import ConformalScores; "
        "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
