# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find, read and slice inputs."""

from __future__ import annotations

from monai_anomalyclip.data.datalist import entries_digest, load_datalist
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.fault_tolerant import FaultTolerantDataset
from monai_anomalyclip.data.feature_cache import EncodeImaged, FeatureKey, feature_dataset
from monai_anomalyclip.data.frames import LoadFramed, load_frame, read_frame
from monai_anomalyclip.data.inputs import InputCatalogue, LoadInputd, load_input
from monai_anomalyclip.data.masks import LoadMaskd, read_mask
from monai_anomalyclip.data.nifti import load_volume, read_volume
from monai_anomalyclip.data.readable_items import ReadableItems, UnreadableItem, UnreadableItemsError
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import InputPart, ReadOptions, Source

__all__ = [
    "EncodeImaged",
    "FaultTolerantDataset",
    "FeatureKey",
    "InputCatalogue",
    "InputPart",
    "LoadFramed",
    "LoadInputd",
    "LoadMaskd",
    "ReadOptions",
    "ReadableItems",
    "SliceView",
    "Source",
    "UnreadableInputError",
    "UnreadableItem",
    "UnreadableItemsError",
    "entries_digest",
    "feature_dataset",
    "load_datalist",
    "load_frame",
    "load_input",
    "load_volume",
    "read_frame",
    "read_mask",
    "read_volume",
]
