# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from . import baselines, datasets, fullshot, reproduce

__all__ = ["baselines", "datasets", "fullshot", "reproduce"]
