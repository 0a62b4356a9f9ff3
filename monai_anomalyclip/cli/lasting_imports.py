# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Modules that are imported once and stay: Python need not look for garbage among them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["lasting_imports"]


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Within the block no garbage is collected, and what is there at its end never.

    Torch and MONAI are a million objects. Looking through them again and again takes a second while they are imported,
    some time whenever a run collects its own garbage, and more than a second when the program ends.

    Example::

        with lasting_imports():
            from monai_anomalyclip.inference import run_inference
    """
    enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:  # else what a caller has made would be kept, too
            gc.freeze()
        if enabled:
            gc.enable()
