# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .parametric_map import write_parametric_map
from .provenance import Provenance
from .secondary_capture import write_secondary_capture
from .segmentation import write_segmentation
from .structured_report import ReportedFinding, write_report

__all__ = [
    "Provenance",
    "ReportedFinding",
    "write_parametric_map",
    "write_report",
    "write_secondary_capture",
    "write_segmentation",
]
