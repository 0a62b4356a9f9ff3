# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .precision import resolve_precision
from .slice_inferer import AnomalySliceInferer

__all__ = ["AnomalySliceInferer", "resolve_precision"]
