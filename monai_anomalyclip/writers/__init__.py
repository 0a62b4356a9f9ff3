# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
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
