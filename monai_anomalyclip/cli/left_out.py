# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the files that were left out ought to have been read."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["damaged_files"]

# Codes of monai_anomalyclip.data.dicom: what an undamaged copy would be read from. All others are left out as they are
# meant to be: no image, no DICOM, a copy, ...
_DAMAGED = ("damaged header", "deflated too large", "header too large", "too large", "unreadable")


def damaged_files(left_out: Mapping[str, int]) -> int:
    """How many files are damaged, cannot be opened, or claim more than can be read.

    Args:
        left_out: number of files and series by reason, as :meth:`monai_anomalyclip.data.InputCatalogue.left_out` gives.
    """
    return sum(left_out.get(code, 0) for code in _DAMAGED)
