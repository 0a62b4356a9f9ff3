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
