# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_anomalyclip``, the same as the command ``monai-anomalyclip``."""

from __future__ import annotations

from monai_anomalyclip.cli import run

run()
