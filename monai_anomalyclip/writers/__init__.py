# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write results: maps, masks, overlays, DICOM objects, tables and the report.

Names are imported when they are first used: records and tables need neither torch nor MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "CineWriter": "cine",
    "InputRecord": "record",
    "InputState": "finished",
    "NiftiGrid": "nifti",
    "OutputFolder": "output_folder",
    "RunDocument": "tables",
    "contact_sheet": "overlays",
    "montage": "overlays",
    "overlay": "overlays",
    "side_by_side": "overlays",
    "write_frame_result": "result_files",
    "write_html_report": "report",
    "write_volume_result": "result_files",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
