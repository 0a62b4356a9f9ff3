# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Zero-shot anomaly detection and segmentation in medical images: AnomalyCLIP (ICLR 2024) as a MONAI plugin.

Research use only. The face of the package:

- ``predict("study", "results")``: score everything in a folder and write the results, as the command does.
- ``Predictor("my_bundle")``: load once, score many: paths, arrays, tensors, images of PIL, nibabel, SimpleITK, pydicom.
- ``AnomalyCLIP``: the network. ``load_input``: one input as the network's readers see it.

These, and the sub-packages, are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_anomalyclip.data.inputs import load_input
    from monai_anomalyclip.networks.anomaly_clip import AnomalyCLIP
    from monai_anomalyclip.predictor import Predictor, predict

__all__ = ["RESEARCH_USE_ONLY", "AnomalyCLIP", "Predictor", "__version__", "load_input", "predict"]

__version__ = "0.1.0"

RESEARCH_USE_ONLY = "Research use only. Not a medical device; not for diagnosis or treatment."

_SUB_PACKAGES = {
    "bundles",
    "cli",
    "data",
    "demo",
    "engines",
    "experiments",
    "export",
    "handlers",
    "inferers",
    "label",
    "losses",
    "metrics",
    "networks",
    "transforms",
    "weights",
    "writers",
}


_FACE = {
    "AnomalyCLIP": "networks.anomaly_clip",
    "Predictor": "predictor",
    "load_input": "data.inputs",
    "predict": "predictor",
}


def __getattr__(name: str) -> Any:
    # Bundle configurations know only `$import monai_anomalyclip` and reach everything else from there.
    if name in _SUB_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FACE:
        return getattr(importlib.import_module(f"{__name__}.{_FACE[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUB_PACKAGES})
