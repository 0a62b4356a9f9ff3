# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Zero-shot anomaly detection and segmentation in medical images: AnomalyCLIP (ICLR 2024) as a MONAI plugin.

Sub-packages are imported when they are first used: ``import monai_anomalyclip;
monai_anomalyclip.networks.AnomalyCLIP``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["RESEARCH_USE_ONLY", "__version__"]

__version__ = "0.1.0"

RESEARCH_USE_ONLY = "Research use only. Not a medical device; not for diagnosis or treatment."

_SUB_PACKAGES = {
    "baselines",
    "cli",
    "data",
    "demo",
    "engines",
    "export",
    "handlers",
    "inferers",
    "label",
    "losses",
    "metrics",
    "networks",
    "reference",
    "reproduce",
    "transforms",
    "weights",
    "writers",
}


def __getattr__(name: str) -> ModuleType:
    # Bundle configurations know only `$import monai_anomalyclip` and reach everything else from there.
    if name in _SUB_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
