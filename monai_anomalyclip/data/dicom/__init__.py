# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
