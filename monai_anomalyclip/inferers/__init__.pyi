# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .slice_inferer import AnomalySliceInferer
from .views import Views, ViewsInferer

__all__ = ["AnomalySliceInferer", "Views", "ViewsInferer"]
