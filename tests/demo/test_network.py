# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from monai_anomalyclip.demo import network as backbone
from monai_anomalyclip.demo.network import DEMO_BANNER, WEIGHTS_FOLDER, demo_backbone, demo_network
from monai_anomalyclip.networks.clip_weights import tensors_digest
from monai_anomalyclip.writers.dicom.provenance import describe_model
from monai_anomalyclip.writers.record import caution_of


def test_weights_fit_open_clip() -> None:
    config, weights = demo_backbone()
    state = load_file(weights)
    assert all(value.dtype == torch.float16 for value in state.values())
    model = open_clip.CLIP(**config["clip"])
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    layers = config["clip"]["vision_cfg"]["layers"]
    assert config["image_size"] == 112
    assert max(config["feature_layers"]) <= layers
    assert 1 <= config["dpam_start"] <= max(config["feature_layers"])


def test_only_rows_of_caption_words_are_stored() -> None:
    _, weights = demo_backbone()
    rows = load_file(weights)["token_embedding.weight"].abs().sum(dim=1) > 0
    assert rows.sum() < 400
    tokens = open_clip.SimpleTokenizer()(["a damaged object.", "a flawless fabric", "an endoscopy frame with a polyp"])
    assert rows[tokens[tokens > 0]].all()
    assert not rows[open_clip.SimpleTokenizer()(["zebra"])[0, 1]]


def test_its_results_say_that_scores_on_real_scans_are_meaningless() -> None:
    network = demo_network(deep_prompt_depth=4)
    assert "synthetic images only" in describe_model(network, None).caution
    network.clip.visual.conv1.weight.data.add_(1e-3)
    changed = tensors_digest(network.clip.state_dict())
    assert caution_of(changed) == caution_of(None) == ""


def test_size_on_disk() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.iterdir()) < 16 * 2**20


def test_banner_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    backbone._announce.cache_clear()
    with caplog.at_level(logging.WARNING):
        demo_backbone()
        demo_backbone()
    assert [record.getMessage() for record in caplog.records] == [DEMO_BANNER]


def test_missing_weights_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "WEIGHTS_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tools\.demo_backbone\.training --output"):
        demo_backbone()
