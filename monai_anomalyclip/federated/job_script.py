# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""All the code that a job carries: it starts what is installed at the site."""

# By name: NVFlare copies into the job what a script imports, and sites are to run their own.
from __future__ import annotations

import importlib

if __name__ == "__main__":
    importlib.import_module("monai_anomalyclip.federated.site").main()
