# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``monai-anomalyclip federated``: prompts tuned by several sites, none of which hands out an image."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["add_command"]

_DESCRIPTION = f"""Tune prompts at several sites with NVIDIA FLARE. Images stay at the sites, prompts travel.

`simulate` runs a server and all sites on this computer, without a network; `job` writes the folder that an
administrator submits to a real server. Needs monai_anomalyclip[federated]. Read docs/how_to/federated.md first: a job
runs code at the sites.

{RESEARCH_USE_ONLY}
"""

_EXAMPLES = """examples:
  monai-anomalyclip federated simulate a=SITE_A b=SITE_B -o runs/federated --bundle bundles/anomalyclip --rounds 20
  monai-anomalyclip federated job --sites 3 -o job --bundle bundles/anomalyclip --rounds 20 --mu 0.1
  monai-anomalyclip federated job --sites 3 -o job --bundle bundles/anomalyclip --privacy gamma=0.001 noise_var=10
"""


def add_command(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "federated",
        help="tune prompts at several sites that keep their images",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    simulation = actions.add_parser("simulate", help="a server and all sites on this computer, without a network")
    simulation.add_argument(
        "sites", nargs="+", type=_site, metavar="NAME=DIR", help="a site, and its folder with images and datalist.json"
    )
    job = actions.add_parser("job", help="write the folder that an administrator submits to a server")
    job.add_argument("--sites", required=True, type=int, metavar="N", help="how many must answer in each round")
    simulation.set_defaults(run=_simulate)
    job.set_defaults(run=_job)
    for action in (simulation, job):
        action.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write")
        action.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="bundle with configs/train.json")
        action.add_argument("--prompts", type=Path, metavar="FILE", help="prompts to begin with (default: fresh ones)")
        action.add_argument(
            "--config", action="append", default=[], type=Path, metavar="FILE", help="configuration over train.json"
        )
        action.add_argument("--rounds", type=int, default=2, metavar="N", help="rounds (default: 2)")
        action.add_argument("--epochs", type=int, default=1, metavar="N", help="of a site in each round (default: 1)")
        action.add_argument(
            "--mu", type=float, default=0.0, help="FedProx: hold each site near what it was sent (default: 0, FedAvg)"
        )
        action.add_argument(
            "--privacy",
            nargs="*",
            type=_setting,
            metavar="NAME=NUMBER",
            help="clip each site's change and add noise to it (settings of NVFlare's SVTPrivacy; default: no noise)",
        )
        action.add_argument("--seed", type=int, default=0, help="of fresh prompts (default: 0)")


def _site(text: str) -> tuple[str, Path]:
    name, given, folder = text.partition("=")
    if not (given and folder and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r}: a site is NAME=DIR, its name of letters, digits and _")
    return name, Path(folder)


def _setting(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=NUMBER") from None


def _tuning(arguments: argparse.Namespace) -> dict[str, Any]:
    if not (arguments.bundle / "configs" / "train.json").is_file():
        raise FileNotFoundError(f"There is no bundle with configs/train.json at '{arguments.bundle}'.")
    privacy = None if arguments.privacy is None else dict(arguments.privacy)
    return {"rounds": arguments.rounds, "epochs": arguments.epochs, "mu": arguments.mu, "privacy": privacy}


def _simulate(arguments: argparse.Namespace) -> int:
    tuning = _tuning(arguments)
    names = [name for name, _ in arguments.sites]
    if len(set(names)) < len(names):
        raise ValueError(f"Each site needs a name of its own: {', '.join(names)}.")
    for name, folder in arguments.sites:
        if not (folder / "datalist.json").is_file():
            raise FileNotFoundError(f"Site {name} has no datalist.json in '{folder}'.")
    from monai_anomalyclip.federated import SiteSettings, simulate  # slow to import, and --help needs none of it

    sites = {
        name: SiteSettings(
            bundle=arguments.bundle.absolute(),
            dataset_dir=folder.absolute(),
            output_dir=arguments.output.absolute() / "sites" / name,
            configs=tuple(config.absolute() for config in arguments.config),
        )
        for name, folder in arguments.sites
    }
    prompts = simulate(sites, arguments.output, prompts=arguments.prompts, seed=arguments.seed, **tuning)
    print(f"{prompts}: prompts of {len(sites)} sites after {arguments.rounds} rounds. {RESEARCH_USE_ONLY}")
    return 0


def _job(arguments: argparse.Namespace) -> int:
    tuning = _tuning(arguments)
    if arguments.output.exists():
        raise FileExistsError(f"'{arguments.output}' exists: name a folder that does not.")
    from monai_anomalyclip.federated import federated_recipe, write_initial_prompts

    arguments.output.mkdir(parents=True)
    initial = arguments.output / "initial.pt"
    size = write_initial_prompts(arguments.bundle, initial, arguments.prompts, arguments.config, arguments.seed)
    federated_recipe(initial, arguments.sites, **tuning).export(str(arguments.output))
    print(
        f"{arguments.output}/anomalyclip: submit this folder to the server. In a round {size} bytes go to each site, "
        f"and as many come back. {RESEARCH_USE_ONLY}"
    )
    return 0
