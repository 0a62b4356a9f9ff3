# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .grouping import group_instances
from .reader import load_series
from .scan import Scan, scan_files
from .series import DicomSeries, FrameReference, Instance, SkippedFile, StackGeometry

__all__ = [
    "DicomSeries",
    "FrameReference",
    "Instance",
    "Scan",
    "SkippedFile",
    "StackGeometry",
    "group_instances",
    "load_series",
    "scan_files",
]
