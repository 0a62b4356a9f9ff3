# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Sites that tune together: MONAI's client, in this process, on the demonstration bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from monai_anomalyclip.networks import AnomalyCLIP

State = dict[str, Tensor]
BATCHES = {"first": 3, "second": 1}  # of 8 images, per epoch

pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")


@pytest.fixture(scope="module")
def network(data_dir: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of AnomalyCLIP on the tiny reference CLIP."""
    return {
        "model_name": tiny_config["clip"],
        "pretrained": str(data_dir / "tiny" / "clip_weights_fp16.safetensors"),
        "image_size": 84,
        "feature_layers": [12],
        "dpam_start": 5,
        "prompt_length": 12,
        "deep_prompt_depth": 5,
        "deep_prompt_length": 4,
    }


Site = Callable[[str], MonaiAlgo]


@pytest.fixture
def site(network: dict[str, Any], copy_bundle: Callable[..., Path], few_phantoms: Path, tmp_path: Path) -> Site:
    """A process of a site: what it has on disk is what its last one left there; first it has no prompts."""
    overlay = tmp_path / "tiny.json"
    overlay.write_text(json.dumps({"network_def": {"_target_": "monai_anomalyclip.networks.AnomalyCLIP", **network}}))
    entries = json.loads((few_phantoms / "datalist.json").read_text())

    def start(name: str) -> MonaiAlgo:
        folder = tmp_path / name
        if not folder.exists():
            copy_bundle(folder, "anomalyclip_demo")
            own = {**entries, "training": entries["training"][: 8 * BATCHES[name]]}
            for section in own.values():
                for entry in section if isinstance(section, list) else []:
                    for key in {"image", "label"} & set(entry):
                        entry[key] = str(few_phantoms / entry[key])
            (folder / "datalist.json").write_text(json.dumps(own))
        options = {
            "dataset_dir": str(folder),
            "output_dir": str(folder / "runs"),
            "bootstrap": 0,
            "device": "$torch.device('cpu')",
        }
        client = MonaiAlgo(
            str(folder / "anomalyclip_demo"),
            send_weight_diff=False,
            config_train_filename=["configs/train.json", str(overlay)],
            config_evaluate_filename=["configs/train.json", "configs/evaluate.json", str(overlay)],
            train_kwargs=dict(options),
            eval_kwargs=dict(options),
        )
        client.initialize({ExtraItems.CLIENT_NAME: name})
        return client

    return start


def tuned_from(client: MonaiAlgo, weights: Mapping[str, Tensor]) -> tuple[State, ExchangeObject]:
    """Tune one round; the prompts that its first step began with, and what the site answers."""
    began: list[State] = []
    handler = client.trainer.add_event_handler(
        Events.ITERATION_STARTED(once=client.trainer.state.iteration + 1),
        lambda engine: began.append({name: value.clone() for name, value in engine.network.state_dict().items()}),
    )
    client.train(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS))
    handler.remove()
    return began[0], client.get_weights()


def averaged(answers: list[ExchangeObject]) -> State:
    """What a server makes of its sites' answers, each counting by the steps that it did."""
    steps = [answer.statistics["num_executed_iterations"] for answer in answers]
    return {
        name: sum(step * answer.weights[name].double() for step, answer in zip(steps, answers, strict=True)).float()
        / sum(steps)
        for name in answers[0].weights
    }


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "new process"])
def test_every_round_begins_with_the_aggregate(restarted: bool, network: dict[str, Any], site: Site) -> None:
    torch.manual_seed(5)
    model: State = dict(AnomalyCLIP(**network).state_dict())
    clients = {name: site(name) for name in BATCHES}
    for _ in range(2):
        answers = []
        for name, client in clients.items():
            began, answer = tuned_from(client, {key: value.clone() for key, value in model.items()})
            assert equal(began, model)
            assert answer.statistics["num_executed_iterations"] == BATCHES[name]
            assert not equal(answer.weights, model)
            answers.append(answer)
        first, second = (answer.weights for answer in answers)
        model = averaged(answers)
        assert all(torch.allclose(model[name], 0.75 * first[name] + 0.25 * second[name], atol=1e-6) for name in model)
        if restarted:
            clients = {name: site(name) for name in BATCHES}


def test_site_without_prompts_scores_what_it_is_sent(network: dict[str, Any], site: Site) -> None:
    client = site("second")
    torch.manual_seed(5)
    sent = AnomalyCLIP(**network)
    metrics = client.evaluate(ExchangeObject(weights=dict(sent.state_dict()), weight_type=WeightType.WEIGHTS)).metrics
    assert 0 <= metrics["image_auroc"] <= 1
    assert equal(client.evaluator.network.state_dict(), sent.state_dict())
