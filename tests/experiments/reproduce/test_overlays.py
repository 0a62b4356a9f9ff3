# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every overlay of configs/experiments: it loads with both bundles and changes what its name says, and only that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_anomalyclip.experiments.baselines import PlainCLIP
from monai_anomalyclip.experiments.reproduce import TABLES
from monai_anomalyclip.experiments.reproduce.ablated_parts import (
    GlobalAndDiceLoss,
    GlobalAndFocalLoss,
    LocalLoss,
    ObjectAwareAnomalyCLIP,
    PrepareClassBatch,
    ToldCoOp,
    ToldVAND,
)
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP

REPOSITORY = Path(__file__).parents[3]
EXPERIMENTS = REPOSITORY / "configs" / "experiments"
BUNDLES = ("anomalyclip", "anomalyclip_demo")

# What the network is then built with, where it differs from the bundle; of the demonstration's overlays on its tower.
NETWORK: dict[str, dict[str, Any]] = {
    "attention_qk": {"dpam_attention": "qk"},
    "attention_qq": {"dpam_attention": "qq"},
    "attention_kk": {"dpam_attention": "kk"},
    "attention_qq_kk_vv": {"dpam_attention": "qq+kk+vv"},
    "attention_qk_qq_kk_vv": {"dpam_attention": "qk+qq+kk+vv"},
    "shared_context": {"shared_context": True},
    "no_deep_tokens": {"deep_prompt_depth": 1, "deep_prompt_length": 0},
    "fixed_words": {
        "prompt_length": 0,
        "deep_prompt_depth": 1,
        "deep_prompt_length": 0,
        "normal_words": ["a photo of a normal object"],
        "abnormal_words": ["a photo of an anomalous object"],
    },
    **{f"prompt_length_{length}": {"prompt_length": length} for length in (4, 8, 16)},
    **{f"deep_depth_{depth}": {"deep_prompt_depth": depth} for depth in (3, 5, 7, 11)},
    **{f"deep_length_{length}": {"deep_prompt_length": length} for length in (1, 2, 8)},
    "layers_18_24": {"feature_layers": [18, 24]},
    "layers_12_18_24": {"feature_layers": [12, 18, 24]},
    **{
        f"words_{word}": {"abnormal_words": [f"{word} object"]}
        for word in ("anomalous", "defective", "flawed", "blemished")
    },
    "fixed_context": {
        "prompt_length": 4,
        "normal_words": ["normal object"],
        "abnormal_words": ["damaged object"],
    },
    "demo/deep_depth_2": {"deep_prompt_depth": 2},
    "demo/layers_5_6": {"feature_layers": [5, 6]},
    "demo/layers_4_5_6": {"feature_layers": [4, 5, 6]},
    "demo/layers_3_4_5_6": {"feature_layers": [3, 4, 5, 6]},
}
LOSS = {
    "loss_global": (GlocalLoss, 0.0),
    "loss_local": (LocalLoss, 4.0),
    "loss_dice": (GlobalAndDiceLoss, 4.0),
    "loss_focal": (GlobalAndFocalLoss, 4.0),
    "layers_18_24": (GlocalLoss, 2.0),
    "layers_12_18_24": (GlocalLoss, 4 / 3),
    "demo/layers_5_6": (GlocalLoss, 2.0),
    "demo/layers_4_5_6": (GlocalLoss, 4 / 3),
    "demo/layers_3_4_5_6": (GlocalLoss, 1.0),
}
TOLD = {
    "object_aware": (ObjectAwareAnomalyCLIP, None),
    "coop_told": (ToldCoOp, "coop"),
    "vand_as_published": (ToldVAND, "vand"),
}
UNUSED = ("features_on_disk", "tuned_on_mvtec", "tuned_on_visa", "tuned_on_colondb_endo")
ELSEWHERE = (*UNUSED, *TOLD, "untuned")
NAMES = sorted(str(path.relative_to(EXPERIMENTS).with_suffix("")) for path in EXPERIMENTS.rglob("*.json"))


def loaded(bundle: str, overlays: list[str], further: list[Path], workflow: str = "train", **given: Any) -> Any:
    folder = REPOSITORY / "bundles" / bundle
    names = ["train"] if workflow == "train" else ["train", "evaluate"]
    files = [*(folder / "configs" / f"{name}.json" for name in names)]
    # As published; else the loss asks the data, and there are none here.
    given = {"dice_on_normal_images": True, **given}
    files += [*further, *(EXPERIMENTS / f"{overlay}.json" for overlay in overlays)]
    made = ConfigWorkflow(
        list(map(str, files)), workflow_type="train", logging_file=False, bundle_root=str(folder), **given
    )
    return made.parser


def network_of(parser: Any) -> AnomalyCLIP:
    network = parser.get_parsed_content("network_def")
    assert type(network) is AnomalyCLIP
    return network


@pytest.fixture(scope="session")
def thin_network(thin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of the bundle ``anomalyclip`` on the thin CLIP, for the demonstration's bundle, too."""
    network = json.loads((REPOSITORY / "bundles/anomalyclip/configs/train.json").read_text())["network_def"]
    file = tmp_path_factory.mktemp("overlay") / "network.json"
    file.write_text(json.dumps({**json.loads(thin.read_text()), "network_def": network}))
    return file


def test_every_overlay_is_known_here() -> None:
    assert sorted({*NETWORK, *LOSS, *ELSEWHERE}) == NAMES


def test_every_overlay_is_used() -> None:
    used = {overlay for table in TABLES.values() for experiment in table.experiments for overlay in experiment.overlays}
    assert {f"experiments/{name}" for name in NAMES if name not in UNUSED} == used - {"paper_text"}


@pytest.fixture(scope="module")
def plain_settings(thin_network: Path) -> dict[bool, dict[str, Any]]:
    """Settings of the network without overlays: of the demonstration, and on the thin CLIP."""
    return {
        True: network_of(loaded("anomalyclip_demo", [], [])).settings,
        False: network_of(loaded("anomalyclip", [], [thin_network])).settings,
    }


@pytest.mark.parametrize(
    ("name", "bundle"),
    [
        (name, bundle)
        for name in NAMES
        if name not in ELSEWHERE
        for bundle in BUNDLES
        if bundle == "anomalyclip_demo" or not name.startswith("demo/")  # made for the demonstration's tower
    ],
)
def test_changes_what_it_claims(
    name: str, bundle: str, thin_network: Path, plain_settings: dict[bool, dict[str, Any]]
) -> None:
    for_demo = name.startswith("demo/")
    changed = loaded(bundle, [name], [] if for_demo else [thin_network])
    assert network_of(changed).settings == {**plain_settings[for_demo], **NETWORK.get(name, {})}
    loss, weight = LOSS.get(name, (GlocalLoss, 4.0))
    made = changed.get_parsed_content("loss")
    assert type(made) is loss
    assert made.lambda_local == pytest.approx(weight)


@pytest.mark.parametrize("name", sorted(set(LOSS) & {"layers_18_24", "layers_12_18_24"}))
def test_pixel_terms_weigh_the_same_over_all_layers(name: str, thin_network: Path) -> None:
    parser = loaded("anomalyclip", [name], [thin_network])
    layers = network_of(parser).settings["feature_layers"]
    assert len(layers) * parser.get_parsed_content("lambda_local") == pytest.approx(4.0)


def test_fixed_words_are_those_of_clip(thin_network: Path, thin_weights: Path) -> None:
    backbone = json.loads(thin_network.read_text())["backbone"]
    fixed = network_of(loaded("anomalyclip", ["fixed_words"], [thin_network]))
    plain = PlainCLIP(backbone["model_name"], thin_weights, image_size=backbone["image_size"], ensemble="single")
    torch.testing.assert_close(fixed.encode_prompts(), plain.encode_prompts(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mvtec", "visa", "colondb-endo"])
def test_tuning_sets_keep_their_prompts_apart(name: str, thin_network: Path, tmp_path: Path) -> None:
    overlay = f"tuned_on_{name.replace('-', '_')}"
    for workflow in ("train", "evaluate"):
        parser = loaded("anomalyclip", [overlay], [thin_network], workflow, dataset_dir=str(tmp_path))
        folder = f"{REPOSITORY / 'bundles/anomalyclip'}"
        assert parser.get_parsed_content("datalist") == f"{tmp_path}/{name}.json"
        assert parser.get_parsed_content("model_dir") == f"{folder}/models/{overlay}"
        assert parser.get_parsed_content("output_dir") == f"{folder}/runs/{overlay}"
        assert parser.get_parsed_content("prompts") == f"{folder}/models/{overlay}/model.pt"


def test_features_go_to_disk(thin_network: Path) -> None:
    assert loaded("anomalyclip", ["features_on_disk"], [thin_network]).get_parsed_content("feature_cache") == "disk"


@pytest.mark.parametrize("name", TOLD)
def test_network_and_batches_tell_classes(name: str, thin_network: Path) -> None:
    network, method = TOLD[name]
    methods = [] if method is None else [REPOSITORY / "configs" / "methods" / f"{method}.json"]
    for workflow in ("train", "evaluate"):
        parser = loaded("anomalyclip", [name], [thin_network, *methods], workflow)
        made = parser.get_parsed_content("network_def")
        assert type(made) is network
        assert made.settings.get("published_backbone", False) == (name == "vand_as_published")
        for part in ("train#trainer", "validate#evaluator"):
            assert type(parser.get_parsed_content(f"{part}#prepare_batch")) is PrepareClassBatch
        assert parser.get_parsed_content("train#trainer#prepare_batch").output == "logits"


def test_untuned_prompts_are_drawn_and_nothing_is_loaded(thin_network: Path) -> None:
    parser = loaded("anomalyclip", ["untuned"], [thin_network], "evaluate")
    assert parser.get_parsed_content("load_prompts") is None
    assert parser.get_parsed_content("check_prompts") is None
    network_of(parser)


def test_fixed_context_learns_in_the_text_tower_alone(thin_network: Path) -> None:
    parser = loaded("anomalyclip", ["fixed_context"], [thin_network])
    (group,) = parser.get_parsed_content("optimizer").param_groups
    network = network_of(parser)
    assert [id(value) for value in group["params"]] == [id(value) for value in network.prompts.deep_prompts]
    assert len(group["params"]) == 8
