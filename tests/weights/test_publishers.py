# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from monai_anomalyclip.weights import PROMPTS, clip_source


def test_clip_is_the_file_that_open_clip_names() -> None:
    from open_clip.pretrained import get_pretrained_url

    source = clip_source()
    assert source.url == get_pretrained_url("ViT-L-14-336", "openai")
    assert source.url == get_pretrained_url("ViT-L-14-336-quickgelu", "openai")
    assert source.url.startswith("https://")
    assert source.url.endswith(f"/{source.sha256}/{source.name}")
    assert source.name == "ViT-L-14-336px.pt"


def test_prompts_are_those_of_the_authors_scripts() -> None:
    # train.sh tunes on MVTec AD into ..._visa, which test.sh tests on VisA.
    assert PROMPTS["mvtec"].path.endswith("9_12_4_multiscale_visa/epoch_15.pth")
    assert PROMPTS["visa"].path.endswith("9_12_4_multiscale/epoch_15.pth")
    for source in PROMPTS.values():
        assert source.url.startswith("https://")
        assert source.url.endswith(f"/{source.commit}/{source.path}")
        assert source.commit in source.listing_url


def test_blob_id_is_looked_up() -> None:
    source = PROMPTS["visa"]
    listing = {
        "tree": [{"path": "x", "type": "tree", "sha": "0"}, {"path": source.path, "type": "blob", "sha": "b" * 40}]
    }
    asked: list[str] = []

    def read(url: str) -> bytes:
        asked.append(url)
        return json.dumps(listing).encode()

    assert source.blob_id(read) == "b" * 40
    assert asked == [source.listing_url]


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        [],
        {},
        {"tree": 1},
        {"tree": [1]},
        {"tree": []},
        {"tree": [{"path": "P", "type": "blob", "sha": "../x"}]},
    ],
)
def test_other_answers_are_refused(answer: Any) -> None:
    source = PROMPTS["visa"]
    text = answer if isinstance(answer, str) else json.dumps(answer).replace("P", source.path)
    with pytest.raises(ValueError, match=r"is no list of files|names no file"):
        source.blob_id(lambda _: text.encode())
