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
"""How a network is run over frames and volumes."""

from __future__ import annotations

from monai_anomalyclip.inferers.precision import resolve_precision
from monai_anomalyclip.inferers.slice_inferer import AnomalySliceInferer

__all__ = ["AnomalySliceInferer", "resolve_precision"]
