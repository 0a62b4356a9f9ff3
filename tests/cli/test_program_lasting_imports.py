# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Imports without garbage collection."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from monai_anomalyclip.cli.program import lasting_imports


def import_what_is_not_there() -> None:
    with lasting_imports():
        assert not gc.isenabled()
        raise ImportError("no such module")


def test_collection_goes_on_afterwards_even_after_an_error() -> None:
    with pytest.raises(ImportError, match="no such module"):
        import_what_is_not_there()
    assert gc.isenabled()


def test_only_what_was_imported_is_kept_from_collection() -> None:
    program = """
import gc
from monai_anomalyclip.cli.program import lasting_imports
with lasting_imports():
    pass
print(gc.get_freeze_count())
with lasting_imports():
    import fractions
print(gc.get_freeze_count() > 1000)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "True"]
