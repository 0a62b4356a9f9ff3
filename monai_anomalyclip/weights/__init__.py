# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Weights for real use: what is needed, fetched with checks, packed to be carried, verified where they arrive."""

from __future__ import annotations

from .download import download
from .fetched import default_weights_folder, fetch_clip, fetch_prompts, fetched_clip
from .integrity import git_blob_id, sha256_of
from .offline_bundle import OfflineBundle, make_offline_bundle, verify_offline_bundle
from .sources import PROMPTS, ClipSource, PromptsSource, clip_source

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
