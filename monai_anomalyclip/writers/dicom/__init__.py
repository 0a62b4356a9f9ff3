# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Results as DICOM objects: segmentation, parametric map, structured report, secondary capture."""

from __future__ import annotations

from importlib.util import find_spec

import pydicom

if find_spec("highdicom") is None:
    raise ImportError(
        f"Results are written with highdicom and pydicom 3; this environment has pydicom {pydicom.__version__} and no "
        "highdicom (as MONAI Label's has): write results in an environment with this package's own requirements."
    )

from monai_anomalyclip.writers.dicom.parametric_map import write_parametric_map
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.dicom.secondary_capture import write_secondary_capture
from monai_anomalyclip.writers.dicom.segmentation import write_segmentation
from monai_anomalyclip.writers.dicom.structured_report import write_report

__all__ = [
    "Provenance",
    "write_parametric_map",
    "write_report",
    "write_secondary_capture",
    "write_segmentation",
]
