# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which weights AnomalyCLIP needs, where their owners publish them, and what they are recognised by.

The address of the CLIP file is the one that open_clip names, and holds the SHA-256 of the file; it is written here
because asking open_clip imports torch. The prompts lie in the authors' repository, which is read at one fixed commit;
git's name of the file (its blob id) is looked up there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["PROMPTS", "ClipSource", "PromptsSource", "clip_source"]

CLIP_TAG = "openai"

_REPOSITORY = "zqhang/AnomalyCLIP"
_COMMIT = "45ed4dd35c05797d854294b5e8d585c545920089"
# Of their hosts alone; tests put a server of their own there.
_API, _RAW = "https://api.github.com", "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class ClipSource:
    """OpenAI's CLIP file.

    Attributes:
        url: its address.
        name: its file name.
        sha256: what it must have.
        limit: bytes that it cannot exceed.
        model: what open_clip calls the network.
    """

    url: str
    name: str
    sha256: str
    limit: int = 2 << 30
    owner: str = "OpenAI, MIT licence"
    model: str = "ViT-L-14-336-quickgelu"


_SHA256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
_NAME = "ViT-L-14-336px.pt"
_CLIP = ClipSource(f"https://openaipublic.azureedge.net/clip/models/{_SHA256}/{_NAME}", _NAME, _SHA256)


@dataclass(frozen=True)
class PromptsSource:
    """A file of prompts in the authors' repository.

    Attributes:
        path: its place in the repository.
        name: the name it gets here.
        tuned_on: the data set, whose licence counts too.
        limit: bytes that it cannot exceed.
    """

    path: str
    name: str
    tuned_on: str
    limit: int = 64 << 20
    owner: str = "Qihang Zhou, MIT licence"
    repository: str = _REPOSITORY
    commit: str = _COMMIT

    @property
    def url(self) -> str:
        """The file at the fixed commit."""
        return f"{_RAW}/{self.repository}/{self.commit}/{self.path}"

    @property
    def listing_url(self) -> str:
        """The list of all files at that commit, with their blob ids, as JSON."""
        return f"{_API}/repos/{self.repository}/git/trees/{self.commit}?recursive=1"

    def blob_id(self, read: Callable[[str], bytes]) -> str:
        """Look up git's name of the file.

        Args:
            read: gives the content of an address.

        Raises:
            ValueError: the answer is not such a list, or the file is not in it.
        """
        try:
            files = json.loads(read(self.listing_url))["tree"]
            found = {entry["path"]: entry["sha"] for entry in files if entry["type"] == "blob"}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.listing_url} is no list of files ({type(error).__name__}).") from error
        blob = found.get(self.path)
        if not isinstance(blob, str) or not re.fullmatch("[0-9a-f]{40}", blob):
            raise ValueError(f"{self.listing_url} names no file {self.path!r}.")
        return blob


# As the authors' train.sh and test.sh have it: the folder is called after the set that it was *tested* on.
PROMPTS = {
    "mvtec": PromptsSource(
        "checkpoints/9_12_4_multiscale_visa/epoch_15.pth", "anomalyclip_tuned_on_mvtec.pth", "MVTec AD, CC BY-NC-SA 4.0"
    ),
    "visa": PromptsSource(
        "checkpoints/9_12_4_multiscale/epoch_15.pth", "anomalyclip_tuned_on_visa.pth", "VisA, CC BY 4.0"
    ),
}


def clip_source() -> ClipSource:
    """OpenAI's ViT-L/14@336px, in open_clip ``ViT-L-14-336-quickgelu`` with the tag ``openai``."""
    return _CLIP
