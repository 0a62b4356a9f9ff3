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
"""Results as DICOM objects: segmentation, parametric map, structured report, secondary capture."""

from __future__ import annotations

from importlib.util import find_spec

import pydicom

if find_spec("highdicom") is None:
    raise ImportError(
        f"Results are written with highdicom and pydicom 3; this environment has pydicom {pydicom.__version__} and no "
        "highdicom (as MONAI Label's has): write results in an environment with this package's own requirements."
    )

from monai_anomalyclip.writers.dicom.parametric_map import write_parametric_map
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.dicom.secondary_capture import write_secondary_capture
from monai_anomalyclip.writers.dicom.segmentation import write_segmentation
from monai_anomalyclip.writers.dicom.structured_report import write_report

__all__ = ["Provenance", "write_parametric_map", "write_report", "write_secondary_capture", "write_segmentation"]
