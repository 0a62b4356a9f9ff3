# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts tuned by several sites that keep their images: what a site does, and jobs for NVIDIA FLARE."""

from __future__ import annotations

import lazy_loader

# Without its __dir__: MONAI takes the members of every loaded "monai..." module, which would import them all.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
