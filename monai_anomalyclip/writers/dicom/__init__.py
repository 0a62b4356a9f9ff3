# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Results as DICOM objects: segmentation, parametric map, structured report, secondary capture."""

from __future__ import annotations

from importlib.util import find_spec

import lazy_loader

if find_spec("highdicom") is None:
    from pydicom import __version__ as _pydicom

    raise ImportError(
        f"Results are written with highdicom and pydicom 3; this environment has pydicom {_pydicom} and no highdicom "
        "(as MONAI Label's has): write results in an environment with this package's own requirements."
    )

# Without its __dir__: MONAI takes the members of every loaded "monai..." module, which would import them all.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
