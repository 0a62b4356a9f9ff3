# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

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
