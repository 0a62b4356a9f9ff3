# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.networks import read_prompts
from monai_anomalyclip.writers.dicom.provenance import describe_model, provenance_of


class PlainMethod:
    backbone_name = "ViT-B-16"
    backbone_sha256 = "ab" * 32

    def __init__(self, **settings: Any) -> None:
        self.settings = {"model_name": "ViT-B-16", "pretrained": "/models/clip.pt", **settings}


def test_network_with_prompts(tmp_path: Path) -> None:
    network = demo_network(deep_prompt_depth=4)
    network.save_prompts(tmp_path / "model.pt")
    model = describe_model(network, tmp_path / "model.pt")
    assert model.prompts_sha256 == read_prompts(tmp_path / "model.pt").sha256
    assert (model.backbone, model.backbone_sha256) == (network.backbone_name, network.backbone_sha256)
    assert model.settings["method"] == "AnomalyCLIP"
    assert model.settings["deep_prompt_depth"] == 4
    provenance = provenance_of(model, {"threshold": 0.3, "preset": "none"})
    assert provenance.prompts_sha256 == model.prompts_sha256
    assert (provenance.algorithm_name, provenance.backbone) == ("AnomalyCLIP", network.backbone_name)
    assert dict(provenance.parameters) == {"threshold": 0.3, "preset": "none"}
    assert not provenance.deterministic
    assert provenance_of(model, {}, deterministic=True, context="c").deterministic
    assert provenance_of(model, {}, deterministic=True, context="c").context == "c"


def test_nothing_of_the_file_system_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"prompts")
    model = describe_model(
        PlainMethod(depth=3, normal_words=("flawless",), abnormal_words=("bad",)), tmp_path / "model.pt"
    )
    assert model.settings == {"method": "PlainMethod", "depth": 3}
    assert model.words == {"normal": ("flawless",), "abnormal": ("bad",)}
    assert "models" not in model.model_dump_json()
    assert str(tmp_path) not in model.model_dump_json()


@pytest.mark.parametrize("prompts", [None, "absent.pt"])
def test_method_without_prompts_is_told_by_its_settings(prompts: str | None) -> None:
    model = describe_model(PlainMethod(depth=3), prompts)
    assert model.prompts_sha256 is None
    assert model.words == {"normal": (), "abnormal": ()}
    digest = provenance_of(model, {}).prompts_sha256
    assert len(digest) == 64
    assert digest == provenance_of(describe_model(PlainMethod(depth=3), None), {}).prompts_sha256
    assert digest != provenance_of(describe_model(PlainMethod(depth=4), None), {}).prompts_sha256
