# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts tuned by several sites on phantoms: each alone, FedAvg, FedProx, with noise, and all images in one place.

Every way takes the same number of passes over the images. Sites are those of ``monai_anomalyclip.federated`` in this
process; the server's part, the mean weighted by steps, is done here. (A nightly test compares that with NVFlare's
simulator.) The noise is that of NVFlare's SVTPrivacy filter.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from measuring import machine, write_record
from torch import Tensor

from monai_anomalyclip.bundles.shipped import copy_bundle
from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.evaluation import evaluate_families
from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.federated import FederatedSite, SiteSettings

EXAMPLES = """example:
  python benchmarks/federated.py --seeds 3 --json table.json
"""
NETWORK = {"prompt_length": 12, "deep_prompt_depth": 4, "deep_prompt_length": 4}
State = dict[str, Tensor]
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class SiteData:
    """Families and number of a site's pictures, kinds of defects that count as normal there, how many to skip, and
    whether normal and abnormal are swapped in what it tunes on."""

    families: tuple[str, ...]
    pictures: int
    tolerated: tuple[str, ...] = ()
    first: int = 0
    swapped: bool = False

    def labelled(self, items: Items) -> Items:
        """The site's items, as the site labels them."""
        own = [item for item in items if item["class"] in self.families]
        return [
            {key: value for key, value in item.items() if key != "label"} | {"image_label": 0}
            if item["kind"] in self.tolerated
            else item
            for item in own
        ]


# Sizes of 8 to 1, no family at two sites.
DIFFERENT = {
    "large": SiteData(("metal", "fabric", "wood"), 96),
    "middle": SiteData(("tile", "pill"), 36),
    "small": SiteData(("circuit",), 12),
}
# The same families, but what one site reports the other takes for wear.
DISAGREEING = {
    "strict": SiteData(("metal", "wood"), 36),
    "tolerant": SiteData(("metal", "wood"), 36, ("stain", "scratch"), first=36),
}
# One site has 0 and 1 the wrong way round, a mistake of a script; its results are tested by the true labels.
MISTAKEN = {
    "careful": SiteData(("metal", "wood"), 24),
    "mistaken": SiteData(("metal", "wood"), 48, first=24, swapped=True),
}
CASES = {
    "different families and sizes": DIFFERENT,
    "sites that disagree": DISAGREEING,
    "a site with swapped labels": MISTAKEN,
}


class Phantoms:
    """Pictures to tune on and others to test on, of all industrial families; the medical ones are at no site."""

    def __init__(self, folder: Path, seed: int, training: int, testing: int) -> None:
        self.folder = folder
        write_datalist(folder, training=training, validation=testing, testing=testing, seed=seed, progress=False)
        first = {"training": 2**32, "validation": 2**32 + 300_000, "testing": 2**32 + 600_000}
        self.items = {}
        for section, begin in first.items():
            self.items[section] = load_datalist(folder / "datalist.json", section)
            for number, item in enumerate(self.items[section]):  # phantoms do not tell their defect in the datalist
                lesion = bool(item["image_label"])
                seed_of = begin + seed * 1_000_000 + number
                item["kind"] = sample_phantom(item["class"], lesion, seed_of).kind if lesion else ""

    def of(self, site: SiteData, section: str) -> Items:
        items = site.labelled(self.items[section])
        if section != "training":
            return items
        items = items[site.first : site.first + site.pictures]
        if site.swapped:  # no picture keeps a mask: what is called abnormal has none
            items = [{**item, "image_label": 1 - item["image_label"]} for item in items]
            items = [{key: value for key, value in item.items() if key != "label"} for item in items]
        return items


def make_site(name: str, items: Items, folder: Path, bundle: Path, epochs: int) -> FederatedSite:
    data = folder / name
    data.mkdir(parents=True)
    plain = [{key: value for key, value in item.items() if key != "kind"} for item in items]
    (data / "datalist.json").write_text(json.dumps({"training": plain}))
    settings = SiteSettings(bundle=bundle, dataset_dir=data, output_dir=data / "out")
    return FederatedSite(settings, name, epochs)


def averaged(state: State, answers: Sequence[tuple[State, int]]) -> State:
    """What the server makes of the changes, each counting by its steps."""
    steps = sum(count for _, count in answers)
    return {
        name: value + sum(change[name] * count for change, count in answers) / steps for name, value in state.items()
    }


def noisy(change: State, steps: int, settings: Mapping[str, float]) -> State:
    """What NVFlare's filter lets out of a site."""
    from nvflare.apis.dxo import DXO, DataKind, MetaKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.shareable import Shareable
    from nvflare.app_common.filters.svt_privacy import SVTPrivacy

    arrays = {name: value.numpy() for name, value in change.items()}
    sent = DXO(DataKind.WEIGHT_DIFF, arrays, {MetaKey.NUM_STEPS_CURRENT_ROUND: steps})
    found = SVTPrivacy(**settings).process_dxo(sent, Shareable(), FLContext())
    return {name: torch.as_tensor(np.asarray(value, dtype=np.float32)) for name, value in found.data.items()}


def federated(
    sites: Mapping[str, FederatedSite], state: State, rounds: int, mu: float = 0.0, noise: Any = None
) -> State:
    for _ in range(rounds):
        answers = [site.tune(state, mu) for site in sites.values()]
        if noise is not None:
            answers = [(noisy(change, steps, noise), steps) for change, steps in answers]
        state = averaged(state, answers)
    return state


def scores(state: State, items: Items) -> tuple[float, float]:
    """Image and pixel AUROC, means over families."""
    network = demo_network(**NETWORK)
    network.load_state_dict(state)
    plain = [{key: value for key, value in item.items() if key != "kind"} for item in items]
    image, pixel, _ = evaluate_families({"": network}, plain)[""]["mean"]
    return image, pixel


def case(kinds: Mapping[str, SiteData], seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ways on one draw of phantoms."""
    copy_bundle("anomalyclip_demo", bundle := folder / "bundle")
    phantoms = Phantoms(folder / "phantoms", seed, options.training, options.testing)
    torch.manual_seed(seed)
    initial: State = {name: value.clone() for name, value in demo_network(**NETWORK).state_dict().items()}
    pictures = {name: phantoms.of(kind, "training") for name, kind in kinds.items()}

    def sites(way: str, epochs: int = options.epochs) -> dict[str, FederatedSite]:
        return {name: make_site(name, items, folder / way, bundle, epochs) for name, items in pictures.items()}

    tuned: dict[str, State | dict[str, State]] = {"untuned": initial}
    passes = options.rounds * options.epochs
    alone = sites("alone", passes)
    tuned["local only"] = {name: averaged(initial, [site.tune(initial)]) for name, site in alone.items()}
    tuned["FedAvg"] = federated(sites("fedavg"), initial, options.rounds)
    for mu in options.mu:
        tuned[f"FedProx, mu {mu:g}"] = federated(sites(f"fedprox{mu}"), initial, options.rounds, mu=mu)
    for noise_var in options.noise_var if kinds is DIFFERENT else ():
        settings = {"fraction": 1.0, "gamma": options.gamma, "noise_var": noise_var, "epsilon": 1.0, "tau": 0.0}
        way = f"FedAvg, noise of scale {2 * options.gamma / noise_var:g} a step"
        tuned[way] = federated(sites(f"noise{noise_var}"), initial, options.rounds, noise=settings)
    everything = [item for items in pictures.values() for item in items]
    pooled = make_site("pooled", everything, folder / "pooled", bundle, passes)
    tuned["pooled"] = averaged(initial, [pooled.tune(initial)])

    table: dict[str, Any] = {}
    for way, found in tuned.items():
        of_site = found if way == "local only" else dict.fromkeys(kinds, found)
        rows = {name: scores(of_site[name], phantoms.of(kind, "validation")) for name, kind in kinds.items()}
        of_nobody = found.values() if way == "local only" else [found]
        elsewhere = [scores(state, phantoms.items["testing"]) for state in of_nobody]
        rows["families of no site"] = tuple(np.mean(elsewhere, axis=0).tolist())
        table[way] = rows
        print(way, {name: tuple(round(value, 3) for value in row) for name, row in rows.items()}, flush=True)
    return table


def markdown(tables: Sequence[Mapping[str, Mapping[str, tuple[float, float]]]]) -> str:
    """Means over the draws, with their least and most: image AUROC / pixel AUROC."""
    columns = list(next(iter(tables[0].values())))
    lines = ["| prompts | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for way in tables[0]:
        cells = []
        for column in columns:
            image, pixel = (
                [table[way][column][place] for table in tables] for place in range(2)
            )  # fmt: skip
            cells.append(f"{mean(image):.3f} ({min(image):.3f} to {max(image):.3f}) / {mean(pixel):.3f}")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="draws of phantoms and of fresh prompts")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES, help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="of a site in each round; the other ways take them all")
    parser.add_argument("--training", type=int, default=216, help="pictures of all industrial families to tune on")
    parser.add_argument("--testing", type=int, default=96, help="pictures of all families to test on, of both kinds")
    parser.add_argument("--mu", type=float, nargs="*", default=[100.0], help="of FedProx")
    parser.add_argument("--gamma", type=float, default=1e-3, help="bound of a step's change where noise is added")
    parser.add_argument("--noise_var", type=float, nargs="*", default=[10.0, 1.0], help="of SVTPrivacy; less is louder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", "executing the bundle config")
    record: dict[str, Any] = {"options": {key: value for key, value in vars(options).items() if key != "json"}}
    for title in options.cases:
        kinds = CASES[title]
        tables = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                tables.append(case(kinds, seed, options, Path(folder)))
        print(f"\n{title}\n\n{markdown(tables)}\n", flush=True)
        record[title] = tables
    if options.json:
        write_record(options.json, {"machine": machine(torch.device("cpu")), **record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
