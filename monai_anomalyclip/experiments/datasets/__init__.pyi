# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .registry import DATA_SETS

__all__ = ["DATA_SETS"]
