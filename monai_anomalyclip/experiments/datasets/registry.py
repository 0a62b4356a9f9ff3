# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The data sets of the paper by their names."""

from __future__ import annotations

from monai_anomalyclip.data.datasets.listing import DataSet
from monai_anomalyclip.experiments.datasets.diagnoses import DIAGNOSIS_SETS
from monai_anomalyclip.experiments.datasets.industrial import DAGM, SDD, VISA
from monai_anomalyclip.experiments.datasets.lesion_masks import COLON_MIX, LESION_MASK_SETS
from monai_anomalyclip.experiments.datasets.product_classes import PRODUCT_CLASS_SETS

__all__ = ["DATA_SETS"]

DATA_SETS: dict[str, DataSet] = {
    data_set.info.name: data_set
    for data_set in (*PRODUCT_CLASS_SETS, VISA, SDD, DAGM, *LESION_MASK_SETS, *DIAGNOSIS_SETS, COLON_MIX)
}
"""The paper's data sets by their names on the command line. Add an entry to support another."""
