# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""When a validation metric is the best so far."""

from __future__ import annotations

import math

__all__ = ["higher_unless_nan"]


def higher_unless_nan(current: float, best: float) -> bool:
    """Whether a metric beats the best so far; NaN never does, and is beaten by every number.

    For ``metric_cmp_fn`` of MONAI's engines, whose default takes an undefined first value for unbeatable. In a
    configuration: ``"metric_cmp_fn": "$monai_anomalyclip.metrics.higher_unless_nan"``.
    """
    return not math.isnan(current) and (math.isnan(best) or current > best)
