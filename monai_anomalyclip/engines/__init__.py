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
"""Parts for MONAI's engines: what goes into the network and what happens when an input fails."""

from __future__ import annotations

from .devices import default_device, local_device, start_process_group, stop_process_group
from .fault_tolerant_evaluator import FaultTolerantEvaluator, InputsFailedError
from .prepare_batch import PrepareAnomalyBatch

__all__ = [
    "FaultTolerantEvaluator",
    "InputsFailedError",
    "PrepareAnomalyBatch",
    "default_device",
    "local_device",
    "start_process_group",
    "stop_process_group",
]
