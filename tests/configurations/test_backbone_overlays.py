# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""configs/backbones: another CLIP in the bundle by configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_anomalyclip.experiments.baselines import PlainCLIP
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.networks import AnomalyCLIP

REPOSITORY = Path(__file__).parents[2]
OVERLAY = REPOSITORY / "configs" / "backbones" / "vit_b_16_336.json"

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


def parsed(names: list[str], *overlays: Path) -> Any:
    folder = REPOSITORY / "bundles" / "anomalyclip"
    files = [*(folder / "configs" / f"{name}.json" for name in names), *overlays]
    kind = "infer" if "inference" in names else "train"
    return ConfigWorkflow(
        [str(file) for file in files],
        workflow_type=kind,
        logging_file=False,
        bundle_root=str(folder),
        device="$torch.device('cpu')",
        **{"backbone#pretrained": None},
    ).parser


def test_this_is_all_of_them() -> None:
    assert list(OVERLAY.parent.iterdir()) == [OVERLAY]
    settings = json.loads(OVERLAY.read_text())
    assert settings["backbone"]["pretrained"] == "openai"
    assert settings["backbone"]["image_size"] % 16 == 0


def test_inference_at_full_size() -> None:
    parser = parsed(["inference"], OVERLAY)
    network = parser.get_parsed_content("network_def")
    assert type(network) is AnomalyCLIP
    assert network.backbone_name == "ViT-B-16-quickgelu"
    assert (network.patch_size, network.image_size) == (16, 336)
    assert network.settings["feature_layers"] == [len(network.clip.visual.transformer.resblocks)] == [12]
    assert network.settings["dpam_start"] == 3
    assert network.settings["deep_prompt_depth"] == 9
    inferer = parser.get_parsed_content("inferer")
    assert type(inferer) is AnomalySliceInferer
    assert inferer.image_size == (336, 336)
    result = inferer(torch.rand(1, 3, 40, 50), network)
    assert result["anomaly_map"].shape == (1, 1, 40, 50)
    assert 0 < float(result["anomaly_score"]) < 1


@pytest.mark.parametrize("names", [["train"], ["train", "evaluate"], ["train", "evaluate", "calibrate"]])
def test_every_configuration_takes_it(names: list[str]) -> None:
    parser = parsed(names, OVERLAY)
    assert parser.get_parsed_content("backbone#image_size") == 336
    assert parser["network_def"]["feature_layers"] == [12]
    assert parser["network_def"]["dpam_start"] == 3
    assert parser["network_def"]["model_name"].replace("::", "#") == "@backbone#model_name"


def test_a_method_behind_it() -> None:
    parser = parsed(["inference"], OVERLAY, REPOSITORY / "configs" / "methods" / "clip.json")
    network = parser.get_parsed_content("network_def")
    assert type(network) is PlainCLIP
    assert network.image_size == 336
