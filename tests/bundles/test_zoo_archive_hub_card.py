# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from monai_anomalyclip.bundles.zoo_archive import hub_card


@pytest.fixture(params=["anomalyclip", "anomalyclip_demo"])
def bundle(request: pytest.FixtureRequest, copy_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return copy_bundle(tmp_path, request.param)


def test_card_of_the_hub(bundle: Path) -> None:
    text = hub_card(bundle)
    fields = ModelCard(text).data
    assert (fields.license, fields.library_name, fields.pipeline_tag) == ("apache-2.0", "monai", "image-segmentation")
    assert {"monai", "medical", "arxiv:2310.18961"} <= set(fields.tags)
    assert fields.base_model == ("openai/clip-vit-large-patch14-336" if bundle.name == "anomalyclip" else None)
    assert "Research use only" in text
    assert not re.findall(r"\]\((?!\w+:|#)", text), "relative links lead nowhere on the Hub"


def test_card_that_monai_writes(bundle: Path) -> None:
    from monai.bundle.scripts import _add_model_card_metadata

    shutil.copy(bundle / "docs" / "README.md", bundle / "README.md")
    _add_model_card_metadata(str(bundle / "README.md"))
    fields = ModelCard.load(bundle / "README.md").data
    assert (fields.license, fields.library_name, fields.tags) == ("apache-2.0", "monai", ["monai", "medical"])
