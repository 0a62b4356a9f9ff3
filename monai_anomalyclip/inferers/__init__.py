# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How a network is run over frames and volumes."""

from __future__ import annotations

from monai_anomalyclip.inferers.precision import resolve_precision
from monai_anomalyclip.inferers.slice_inferer import AnomalySliceInferer

__all__ = ["AnomalySliceInferer", "resolve_precision"]
