# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .downloading import download
from .fetched import clip_in_bundle, default_weights_folder, fetch_clip, fetch_prompts, fetched_clip
from .publishers import PROMPTS, ClipSource, PromptsSource, clip_source

__all__ = [
    "PROMPTS",
    "ClipSource",
    "PromptsSource",
    "clip_in_bundle",
    "clip_source",
    "default_weights_folder",
    "download",
    "fetch_clip",
    "fetch_prompts",
    "fetched_clip",
]
