# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Weights for real use: what is needed, fetched with checks, packed to be carried, verified where they arrive."""

from __future__ import annotations

from monai_anomalyclip.bundles.offline import OfflineBundle, make_offline_bundle, verify_offline_bundle
from monai_anomalyclip.weights.download import download
from monai_anomalyclip.weights.fetched import default_weights_folder, fetch_clip, fetch_prompts, fetched_clip
from monai_anomalyclip.weights.integrity import git_blob_id, sha256_of
from monai_anomalyclip.weights.publishers import PROMPTS, ClipSource, PromptsSource, clip_source

__all__ = [
    "PROMPTS",
    "ClipSource",
    "OfflineBundle",
    "PromptsSource",
    "clip_source",
    "default_weights_folder",
    "download",
    "fetch_clip",
    "fetch_prompts",
    "fetched_clip",
    "git_blob_id",
    "make_offline_bundle",
    "sha256_of",
    "verify_offline_bundle",
]
