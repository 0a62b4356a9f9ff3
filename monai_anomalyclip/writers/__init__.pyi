# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .cine import CineWriter
from .journal import Journal, known_names
from .nifti import NiftiGrid
from .overlay import contact_sheet, montage, overlay, side_by_side
from .record import InputRecord
from .report import write_html_report
from .results import write_frame_result, write_volume_result
from .run_document import RunDocument

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
