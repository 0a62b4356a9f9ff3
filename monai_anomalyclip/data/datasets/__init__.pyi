# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .listing import DataSet, DataSetInfo, DataSetListing, Entry, LayoutError, write_datalist
from .registry import SPLITS, data_sets, make_datalist

__all__ = [
    "SPLITS",
    "DataSet",
    "DataSetInfo",
    "DataSetListing",
    "Entry",
    "LayoutError",
    "data_sets",
    "make_datalist",
    "write_datalist",
]
