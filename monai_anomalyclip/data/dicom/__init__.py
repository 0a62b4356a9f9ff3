# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""DICOM studies: find the images, group them into stacks, and judge where they lie."""

from __future__ import annotations

from monai_anomalyclip.data.dicom.grouping import group_instances
from monai_anomalyclip.data.dicom.reader import load_series
from monai_anomalyclip.data.dicom.scan import Scan, scan_files
from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, Instance, SkippedFile, StackGeometry

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
