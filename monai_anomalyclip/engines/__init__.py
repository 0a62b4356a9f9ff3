# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts for MONAI's engines: what goes into the network and what happens when an input fails."""

from __future__ import annotations

from monai_anomalyclip.engines.devices import default_device, local_device, start_process_group, stop_process_group
from monai_anomalyclip.engines.fault_tolerant_evaluator import FaultTolerantEvaluator, InputsFailedError
from monai_anomalyclip.engines.prepare_batch import PrepareAnomalyBatch

__all__ = [
    "FaultTolerantEvaluator",
    "InputsFailedError",
    "PrepareAnomalyBatch",
    "default_device",
    "local_device",
    "start_process_group",
    "stop_process_group",
]
