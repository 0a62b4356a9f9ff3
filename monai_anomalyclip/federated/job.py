# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs for NVIDIA FLARE: what its server and its sites run, and the same in its simulator."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.bundles.shipped import bundle_parser
from monai_anomalyclip.federated import job_script
from monai_anomalyclip.federated.site import SITE_VARIABLE, SiteSettings
from monai_anomalyclip.networks.prompt_checkpoint import RECORD_KEY, convert_prompts, prompts_digest, save_tensors

__all__ = ["federated_recipe", "simulate", "write_initial_prompts"]

_NAME = "anomalyclip"


def write_initial_prompts(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str],
    prompts: str | os.PathLike[str] | None = None,
    configs: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
) -> int:
    """Write the prompts that a job begins with. The server needs no CLIP: it averages what lies in this file.

    Args:
        bundle: folder of a bundle with ``configs/train.json``.
        output: file, ``.pt``.
        prompts: a prompt checkpoint to begin with; default are fresh prompts.
        configs: files that overlay ``train.json``.
        seed: of fresh prompts.

    Returns:
        the bytes of the arrays that go to each site and come back in a round.
    """
    parser = bundle_parser(Path(bundle) / "configs" / "train.json", configs)
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    if prompts is not None:
        network.load_prompts(prompts)
    state = network.state_dict()
    record = state._metadata[""][RECORD_KEY]
    with replaced_when_complete(Path(output)) as unfinished:
        save_tensors({"model": dict(state), RECORD_KEY: record}, unfinished)
    return sum(value.numel() * value.element_size() for value in state.values())


def federated_recipe(
    initial: str | os.PathLike[str],
    sites: int,
    *,
    rounds: int = 2,
    epochs: int = 1,
    mu: float = 0.0,
    privacy: Mapping[str, float] | None = None,
    arguments: Mapping[str, str] | None = None,
) -> Any:
    """A recipe of NVFlare: FedAvg, each site counting by its steps; FedProx with ``mu``.

    Args:
        initial: of :func:`write_initial_prompts`.
        sites: how many must answer before a round ends.
        rounds: at least 1.
        epochs: of each site in a round.
        mu: of FedProx; 0 for FedAvg.
        privacy: arguments of NVFlare's ``SVTPrivacy``, which clips the changes and adds noise at each site before they
            leave it; empty for its defaults, None for none.
        arguments: name of a site -> arguments of its script, where they differ from site to site.

    Returns:
        ``nvflare.recipe.Recipe``: ``export(folder)`` writes the job that an administrator submits.

    Raises:
        ModuleNotFoundError: NVFlare is not installed.
        ValueError: ``mu`` is negative, or SVTPrivacy has no such argument.

    Example:
        >>> write_initial_prompts("bundles/anomalyclip_demo", "initial.pt")
        >>> federated_recipe("initial.pt", sites=2, rounds=20).export("job")
    """
    try:
        from nvflare.app_common.filters.svt_privacy import SVTPrivacy
        from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
        from nvflare.app_opt.pt.recipes.fedprox import FedProxRecipe
        from nvflare.recipe import set_per_site_config
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("NVIDIA FLARE is not installed: pip install nvflare.") from error
    if sites < 1 or rounds < 1:
        raise ValueError(f"A job needs at least 1 site and 1 round, not {sites} and {rounds}.")
    settings: dict[str, Any] = {
        "name": _NAME,
        # The server must be given a class; its weights are those of the file, and nothing is built from it.
        "model": {"class_path": "torch.nn.Identity", "args": {}},
        "min_clients": sites,
        "num_rounds": rounds,
        "initial_ckpt": os.path.relpath(initial),  # what is given by a relative path is put into the job
        "train_script": job_script.__file__,
        "train_args": f"--epochs {epochs}",
    }
    recipe = FedProxRecipe(**settings, fedprox_mu=mu) if mu else FedAvgRecipe(**settings)
    if arguments is not None:  # before the filter: NVFlare takes it at no other time
        set_per_site_config(recipe, {name: {"train_args": text} for name, text in arguments.items()})
    if privacy is not None:
        try:
            recipe.add_client_output_filter(SVTPrivacy(**privacy), tasks=["train"])
        except TypeError as error:
            raise ValueError(f"NVFlare's SVTPrivacy takes no such setting: {error}.") from None
    return recipe


def simulate(
    sites: Mapping[str, SiteSettings],
    output: str | os.PathLike[str],
    *,
    prompts: str | os.PathLike[str] | None = None,
    rounds: int = 2,
    epochs: int = 1,
    mu: float = 0.0,
    privacy: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Path:
    """Run a job in NVFlare's simulator: a server and each site in a process of this computer, without a network.

    Args:
        sites: name -> what the site decides.
        output: folder, made when absent; ``model.pt`` in it is a prompt checkpoint like any other. NVFlare's folder
            with the logs lies beside it, in ``simulator``.
        prompts: to begin with; default are fresh ones.
        rounds: at least 1.
        epochs: of each site in a round.
        mu: see :func:`federated_recipe`.
        privacy: see :func:`federated_recipe`.
        seed: of fresh prompts.

    Returns:
        the prompts after the last round.

    Raises:
        RuntimeError: a site failed, or the prompts did not change.
    """
    output = Path(output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    initial, workspace = output / "initial.pt", output / "simulator"
    shutil.rmtree(workspace, ignore_errors=True)
    first = next(iter(sites.values()))
    write_initial_prompts(first.bundle, initial, prompts, first.configs, seed)
    arguments = {}
    for name, settings in sites.items():
        described = output / f"{name}.json"
        described.write_text(settings.model_dump_json(indent=1), encoding="utf-8")
        arguments[name] = shlex.join(["--epochs", str(epochs), "--site", str(described)])
    recipe = federated_recipe(
        initial, len(sites), rounds=rounds, epochs=epochs, mu=mu, privacy=privacy, arguments=arguments
    )
    from nvflare.recipe import SimEnv

    os.environ.pop(SITE_VARIABLE, None)  # one for all sites: here each has its own file
    recipe.run(SimEnv(clients=list(sites), workspace_root=str(workspace)))
    # NVFlare ends well also where a site failed, or its answer was empty and left out.
    found = next(workspace.rglob("FL_global_model.pt"), None)
    log = "".join(path.read_text(encoding="utf-8") for path in workspace.glob("*/server/log.txt"))
    whole = log.count(f"Aggregated {len(sites)}/{len(sites)} results")
    if found is None or whole < rounds or prompts_digest(found) == prompts_digest(initial):
        raise RuntimeError(
            f"Only {whole} of {rounds} rounds have the answers of all {len(sites)} sites; what the server and the "
            f"sites say lies in '{workspace}'."
        )
    convert_prompts(found, output / "model.pt", overwrite=True)
    return output / "model.pt"
