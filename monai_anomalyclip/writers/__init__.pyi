# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .cine import CineWriter
from .finished import InputState
from .html_report import write_html_report
from .nifti import NiftiGrid
from .output_folder import OutputFolder
from .overlays import overlay, side_by_side
from .record import InputRecord
from .result_files import write_frame_result, write_volume_result
from .slice_pictures import contact_sheet, montage
from .tables import RunDocument

__all__ = [
    "CineWriter",
    "InputRecord",
    "InputState",
    "NiftiGrid",
    "OutputFolder",
    "RunDocument",
    "contact_sheet",
    "montage",
    "overlay",
    "side_by_side",
    "write_frame_result",
    "write_html_report",
    "write_volume_result",
]
