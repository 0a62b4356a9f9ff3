# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The script of a site, NVFlare's client put aside for one that hands out what the test wants."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.federated import SiteSettings, job_script
from monai_anomalyclip.federated.site import SITE_VARIABLE, main

flare = pytest.importorskip("nvflare.client", reason="NVFlare is not installed (extra federated)")
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")


@pytest.fixture
def described(describe: Callable[[str], SiteSettings], tmp_path: Path) -> Path:
    file = tmp_path / "site.json"
    file.write_text(describe("small").model_dump_json())
    return file


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What is received, in order, and what was sent."""
    state = SimpleNamespace(tasks=[], sent=[])
    monkeypatch.setattr(flare, "init", lambda: None)
    monkeypatch.setattr(flare, "get_site_name", lambda: "small")
    monkeypatch.setattr(flare, "is_running", lambda: True)
    monkeypatch.setattr(flare, "receive", lambda: state.tasks.pop(0) if state.tasks else None)
    monkeypatch.setattr(flare, "send", state.sent.append)
    return state


def task(params: Any, **meta: float) -> Any:
    return flare.FLModel(params=params, meta=meta)


def test_each_task_is_answered_with_a_difference(described: Path, server: SimpleNamespace) -> None:
    torch.manual_seed(0)
    sent = dict(demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4).state_dict())
    server.tasks = [task(sent), task(sent, fedprox_mu=0.5)]
    main(["--site", str(described)])
    assert len(server.sent) == 2
    for answer in server.sent:
        assert answer.params_type == flare.ParamsType.DIFF
        assert set(answer.params) == set(sent)
        assert all(isinstance(value, torch.Tensor) for value in answer.params.values())
        assert answer.meta == {"NUM_STEPS_CURRENT_ROUND": 1}
        assert answer.metrics is None


def test_nothing_received_is_a_failure(described: Path, server: SimpleNamespace) -> None:
    server.tasks = [task({})]
    with pytest.raises(ValueError, match="0 of 5 prompts were received"):
        main(["--site", str(described)])
    assert server.sent == []


def test_a_job_cannot_name_another_file(
    described: Path, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SITE_VARIABLE, str(described))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"not": "read"}))
    main(["--site", str(other)])


def test_a_site_without_a_file(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SITE_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=SITE_VARIABLE):
        main([])


def test_the_script_of_a_job_takes_part(
    described: Path, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NVFlare starts it."""
    torch.manual_seed(0)
    server.tasks = [task(dict(demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4).state_dict()))]
    monkeypatch.setattr(sys, "argv", ["script.py", "--site", str(described)])
    runpy.run_path(job_script.__file__, run_name="__main__")
    (answer,) = server.sent
    assert answer.meta == {"NUM_STEPS_CURRENT_ROUND": 1}
