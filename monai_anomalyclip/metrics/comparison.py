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
