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
"""Write results: maps, masks, overlays, DICOM objects, tables and the report."""

from __future__ import annotations

from monai_anomalyclip.writers.cine import CineWriter
from monai_anomalyclip.writers.journal import Journal, known_names
from monai_anomalyclip.writers.nifti import NiftiGrid
from monai_anomalyclip.writers.overlay import contact_sheet, montage, overlay, side_by_side
from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.report import write_html_report
from monai_anomalyclip.writers.results import write_frame_result, write_volume_result
from monai_anomalyclip.writers.run_document import RunDocument

__all__ = [
    "CineWriter",
    "InputRecord",
    "Journal",
    "NiftiGrid",
    "RunDocument",
    "contact_sheet",
    "known_names",
    "montage",
    "overlay",
    "side_by_side",
    "write_frame_result",
    "write_html_report",
    "write_volume_result",
]
