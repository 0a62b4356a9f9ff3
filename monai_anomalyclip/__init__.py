# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Zero-shot anomaly detection and segmentation in medical images: AnomalyCLIP (ICLR 2024) as a MONAI plugin.

Research use only. The face of the package:

- ``predict("study", "results")``: score everything in a folder and write the results, as the command does.
- ``Predictor("my_bundle")``: load once, score many: paths, arrays, tensors, images of PIL, nibabel, SimpleITK, pydicom.
- ``AnomalyCLIP``: the network. ``load_input``: one input as the network's readers see it.

These, and the sub-packages, are imported when they are first used.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

RESEARCH_USE_ONLY = "Research use only. Not a medical device; not for diagnosis or treatment."

# Bundle configurations know only `$import monai_anomalyclip` and reach everything else from there.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["RESEARCH_USE_ONLY", "__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)
