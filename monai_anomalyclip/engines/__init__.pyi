# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .fault_tolerant_evaluator import FaultTolerantEvaluator, InputsFailedError
from .prepare_batch import PrepareAnomalyBatch

__all__ = [
    "FaultTolerantEvaluator",
    "InputsFailedError",
    "PrepareAnomalyBatch",
]
