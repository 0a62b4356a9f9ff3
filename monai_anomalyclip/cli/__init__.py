# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The command line ``monai-anomalyclip``: a thin front over the package."""

from __future__ import annotations

from monai_anomalyclip.cli.main import main

__all__ = ["main"]
