# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PatchCore and RD4AD, which learn from a target's own normal images, through anomalib (see docs/baselines.md)."""

from __future__ import annotations

import lazy_loader

# Without its __dir__: MONAI takes the members of every loaded "monai..." module, which would import them all.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
