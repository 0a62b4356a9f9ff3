# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .datalist import entries_digest, load_datalist
from .errors import UnreadableInputError
from .feature_cache import EncodeImaged, FeatureKey, feature_dataset
from .frames import load_frame, read_frame
from .input_loader import FaultTolerantDataset, InputLoader, LoadFramed, LoadInputd, LoadMaskd, resolve_workers
from .inputs import InputCatalogue, load_input
from .masks import read_mask
from .nifti import load_volume, read_volume
from .readable_items import ReadableItems, UnreadableItem, UnreadableItemsError
from .slicing import SliceView
from .sources import InputPart, ReadOptions, Source

__all__ = [
    "EncodeImaged",
    "FaultTolerantDataset",
    "FeatureKey",
    "InputCatalogue",
    "InputLoader",
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
    "resolve_workers",
]
