# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_anomalyclip.federated import FederatedSite, SiteSettings

pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")

Describe = Callable[[str], SiteSettings]
Arrays = dict[str, np.ndarray]


def prompts_of(site: FederatedSite, shift: float = 0.0) -> Arrays:
    return {name: value.numpy().copy() + np.float32(shift) for name, value in site.network.state_dict().items()}


def size(change: Mapping[str, Tensor]) -> float:
    return float(torch.cat([value.flatten() for value in change.values()]).norm())


@pytest.fixture
def site(describe: Describe) -> FederatedSite:
    return FederatedSite(describe("small"), "small")


def test_the_change_is_counted_from_what_was_sent(site: FederatedSite) -> None:
    for shift in (0.0, 0.25):  # arrays, as NVFlare hands them out; MonaiAlgo alone would leave them aside
        sent = prompts_of(site, shift)
        change, steps = site.tune(sent)
        assert steps == 1
        now = prompts_of(site)
        for name, value in change.items():
            np.testing.assert_allclose(sent[name] + value.numpy(), now[name], atol=1e-6)
        # Adam's first steps are about the learning rate, 0.001, long: nothing was pulled back to the site's own.
        assert 0 < max(value.abs().max() for value in change.values()) < 0.01


def test_a_new_process_of_the_site_begins_with_what_it_is_sent(describe: Describe) -> None:
    first = FederatedSite(describe("small"), "small")
    sent = prompts_of(first, 0.5)
    first.tune(sent)
    again = FederatedSite(describe("small"), "small")  # finds the first one's checkpoint
    change, _ = again.tune(sent)
    assert max(value.abs().max() for value in change.values()) < 0.01


def test_fedprox_goes_less_far(describe: Describe, tmp_path: Path) -> None:
    gone = {}
    for mu in (0.0, 1e4):
        site = FederatedSite(describe("large").model_copy(update={"output_dir": tmp_path / str(mu)}), "large", epochs=3)
        site._client.trainer.optimizer.param_groups[0]["lr"] = 0.01
        gone[mu] = size(site.tune(prompts_of(site), mu)[0])
    assert gone[1e4] < 0.7 * gone[0.0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda sent: {}, r"0 of \d+ prompts were received"),
        (lambda sent: dict(list(sent.items())[1:]), "prompts were received"),
        (lambda sent: {**sent, "prompts.more": np.zeros(1)}, "prompts.more"),
        (lambda sent: {name: value[..., :-1] for name, value in sent.items()}, "received with shape"),
        (lambda sent: {name: value * np.nan for name, value in sent.items()}, "not finite"),
    ],
    ids=["nothing", "one less", "one more", "another width", "not a number"],
)
def test_what_is_not_the_whole_is_refused(spoil: Callable[[Arrays], Arrays], message: str, site: FederatedSite) -> None:
    own = prompts_of(site)
    with pytest.raises(ValueError, match=message):
        site.tune(spoil(own))
    assert all(np.array_equal(value, own[name]) for name, value in prompts_of(site).items())


def test_prompts_that_grew_beyond_all_bounds_are_not_handed_out(site: FederatedSite) -> None:
    site._client.trainer.optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(ValueError, match="no longer finite: tune with a smaller learning rate"):
        site.tune(prompts_of(site))


def test_a_round_has_an_epoch(describe: Describe) -> None:
    with pytest.raises(ValueError, match="at least 1 epoch, not 0"):
        FederatedSite(describe("small"), "small", epochs=0)


def test_noise_is_not_drawn_from_the_seed_of_the_bundle(site: FederatedSite) -> None:
    drawn = []
    for _ in range(2):
        np.random.seed(111)  # noqa: NPY002 - what the bundle's set_determinism does
        site.tune(prompts_of(site))
        drawn.append(np.random.laplace(size=8))  # noqa: NPY002 - as NVFlare's SVTPrivacy draws
    assert not np.allclose(*drawn)


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    described = tmp_path / "site.json"
    described.write_text(json.dumps({"bundle": "b", "dataset_dir": "/d", "output_dir": "o", "configs": ["c.json"]}))
    settings = SiteSettings.read(described)
    assert settings.bundle == tmp_path / "b"
    assert settings.dataset_dir == Path("/d")
    assert settings.configs == (tmp_path / "c.json",)


@pytest.mark.parametrize("text", ["{", "[]", '{"bundle": "b"}', '{"bundle": "b", "dataset_dir": "d", "x": 1}'])
def test_settings_that_are_none(text: str, tmp_path: Path) -> None:
    described = tmp_path / "site.json"
    described.write_text(text)
    with pytest.raises(ValueError, match="does not describe a site"):
        SiteSettings.read(described)
