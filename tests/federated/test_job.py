# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs as files; and as they run in NVFlare's simulator: ``pytest -n 0 -m nightly tests/federated``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.federated import FederatedSite, SiteSettings, federated_recipe, simulate, write_initial_prompts
from monai_anomalyclip.networks import read_prompts

pytest.importorskip("nvflare", reason="NVFlare is not installed (extra federated)")
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")

Describe = Callable[[str], SiteSettings]


def test_initial_prompts_are_a_prompt_checkpoint(bundle: Path, tmp_path: Path) -> None:
    sent = write_initial_prompts(bundle, tmp_path / "initial.pt", seed=3)
    assert sent == 9216
    found = read_prompts(tmp_path / "initial.pt")
    network = demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4)
    assert found.backbone == network.checkpoint().backbone
    network.load_prompts(tmp_path / "initial.pt")
    network.save_prompts(tmp_path / "own.pt")
    assert write_initial_prompts(bundle, tmp_path / "again.pt", tmp_path / "own.pt") == sent
    assert read_prompts(tmp_path / "again.pt").sha256 == found.sha256


@pytest.mark.parametrize("mu", [0.0, 0.25])
def test_exported_job(mu: float, bundle: Path, tmp_path: Path) -> None:
    write_initial_prompts(bundle, tmp_path / "initial.pt")
    recipe = federated_recipe(
        tmp_path / "initial.pt", 3, rounds=4, epochs=2, mu=mu, privacy={"gamma": 0.001, "noise_var": 10}
    )
    recipe.export(str(tmp_path / "job"))
    root = tmp_path / "job" / "anomalyclip"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert "meta.json" in files
    scripts = {file for file in files if file.endswith(".py")}
    assert {Path(script).name for script in scripts} == {"job_script.py"}
    [server] = [json.loads((root / file).read_text()) for file in files if file.endswith("config_fed_server.json")]
    [controller] = server["workflows"]
    assert controller["args"]["num_rounds"] == 4
    assert controller["args"].get("fedprox_mu", 0.0) == mu
    [client] = [json.loads((root / file).read_text()) for file in files if file.endswith("config_fed_client.json")]
    [filters] = client["task_result_filters"]
    assert filters["filters"][0]["path"].endswith("SVTPrivacy")
    assert str(tmp_path) not in "".join((root / file).read_text() for file in files if file.endswith(".json"))


@pytest.mark.parametrize("sites", [0, -1])
def test_a_job_without_sites(sites: int, bundle: Path, tmp_path: Path) -> None:
    write_initial_prompts(bundle, tmp_path / "initial.pt")
    with pytest.raises(ValueError, match="at least 1 site"):
        federated_recipe(tmp_path / "initial.pt", sites)


def test_unknown_setting_of_the_filter(bundle: Path, tmp_path: Path) -> None:
    write_initial_prompts(bundle, tmp_path / "initial.pt")
    with pytest.raises(ValueError, match="strength"):
        federated_recipe(tmp_path / "initial.pt", 2, privacy={"strength": 1})


@pytest.mark.parametrize(
    ("whole", "moved", "said"),
    [(2, 0.5, ""), (1, 0.5, "Only 1 of 2 rounds"), (2, 0.0, "Only 2 of 2"), (0, None, "Only 0 of 2")],
    ids=["all well", "a site was left out", "nothing changed", "nothing came"],
)
def test_what_a_simulation_says_of_itself(
    whole: int, moved: float | None, said: str, describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVFlare's simulator put aside: it ends well whatever the sites did, and what an earlier one left is no result."""
    from nvflare.recipe.spec import Recipe

    sites = {name: describe(name) for name in ("large", "small")}
    out = tmp_path / "run"
    write_initial_prompts(sites["large"].bundle, tmp_path / "old.pt", seed=9)
    (out / "simulator" / "server").mkdir(parents=True)
    (tmp_path / "old.pt").rename(out / "simulator" / "server" / "FL_global_model.pt")
    monkeypatch.setenv("MONAI_ANOMALYCLIP_SITE", "of another job")

    def run(recipe: Recipe, environment: Any) -> None:
        assert "MONAI_ANOMALYCLIP_SITE" not in os.environ
        assert environment.clients == ["large", "small"]
        recipe.export(str(tmp_path / "job"))
        server = Path(environment.workspace_root) / "job" / "server"
        server.mkdir(parents=True)
        (server / "log.txt").write_text("Aggregated 2/2 results\n" * whole + "Aggregated 1/2 results\n" * (2 - whole))
        if moved is not None:
            saved = torch.load(out / "initial.pt", weights_only=True)
            saved["model"] = {name: value + moved for name, value in saved["model"].items()}
            torch.save(saved, server / "FL_global_model.pt")

    monkeypatch.setattr(Recipe, "run", run)
    if said:
        with pytest.raises(RuntimeError, match=rf"{said}.* have the answers of all 2 sites; .*'{out}/simulator'"):
            simulate(sites, out)
        assert not (out / "model.pt").exists()
    else:
        assert simulate(sites, out, epochs=3) == out / "model.pt"
        first, last = read_prompts(out / "initial.pt"), read_prompts(out / "model.pt")
        np.testing.assert_allclose(last.context_normal, first.context_normal + 0.5)
        job = "".join(path.read_text() for path in (tmp_path / "job").rglob("config_fed_client.json"))
        for name, settings in sites.items():
            assert f"--epochs 3 --site {out}/{name}.json" in job
            assert SiteSettings.read(out / f"{name}.json") == settings


def test_without_nvflare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvflare.recipe", None)
    with pytest.raises(ModuleNotFoundError, match="pip install nvflare"):
        federated_recipe("initial.pt", 2)


@pytest.mark.nightly
@pytest.mark.parametrize("mu", [0.0, 10.0])
def test_simulator_makes_the_weighted_mean(mu: float, describe: Describe, tmp_path: Path) -> None:
    sites = {name: describe(name) for name in ("large", "small")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "0")
        found = simulate(sites, tmp_path / "run", rounds=2, mu=mu)
    # The same in this process, without NVFlare.
    state = torch.load(tmp_path / "run" / "initial.pt", weights_only=True)["model"]
    own = {
        name: FederatedSite(settings.model_copy(update={"output_dir": tmp_path / f"own_{name}"}), name)
        for name, settings in sites.items()
    }
    for _ in range(2):
        answers = [site.tune(state, mu) for site in own.values()]
        steps = sum(count for _, count in answers)
        state = {name: value + sum(change[name] * count for change, count in answers) / steps
                 for name, value in state.items()}  # fmt: skip
    made = read_prompts(found)
    for ours, theirs in zip(
        state.values(), [made.context_normal, made.context_abnormal, *made.deep_prompts], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4).load_prompts(found)


@pytest.mark.nightly
def test_simulator_fails_with_a_site_of_another_network(describe: Describe, tmp_path: Path) -> None:
    other = tmp_path / "longer.json"
    other.write_text(json.dumps({"network_def#prompt_length": 10}))
    sites = {"large": describe("large"), "small": describe("small").model_copy(update={"configs": (other,)})}
    with pytest.raises(RuntimeError, match=r"Only 0 of 2 rounds|Simulation failed"):
        simulate(sites, tmp_path / "run", rounds=2)


@pytest.mark.nightly
def test_noise_reaches_the_server(describe: Describe, tmp_path: Path) -> None:
    sites = {"small": describe("small")}
    loud = read_prompts(simulate(sites, tmp_path / "loud", rounds=1, privacy={"gamma": 0.01, "fraction": 1.0}))
    initial = read_prompts(tmp_path / "loud" / "initial.pt")
    # Adam's first step is at most 0.001 long; the noise that SVTPrivacy adds has a scale of 2 gamma / noise_var = 0.2.
    assert (loud.context_normal - initial.context_normal).abs().mean() > 0.02
