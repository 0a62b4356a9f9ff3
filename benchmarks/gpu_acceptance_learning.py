# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Sections of `gpu_acceptance.py`: what is learned and measured on a device, against the CPU."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from end_to_end import BUNDLE, PROMPTS, TREE
from monai.bundle import ConfigWorkflow
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate
from tuning import Noised, tune

from monai_anomalyclip.demo.network import demo_network
from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.demo.studies import demo_seeds, demo_volume
from monai_anomalyclip.demo.volumes import write_nifti
from monai_anomalyclip.label import AnomalyModel, tune_prompts
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP

if TYPE_CHECKING:
    from gpu_acceptance import Size

__all__ = ["annotation", "evaluation", "processes", "small_network", "tuning"]

_BATCH, _STEPS = 8, 3  # of the processes that tune together


def small_network() -> AnomalyCLIP:
    """The demonstration's, with prompts of a seed."""
    torch.manual_seed(0)
    network: AnomalyCLIP = demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4)
    return network


def tuning(network: AnomalyCLIP, device: torch.device, size: Size) -> dict[str, Any]:
    """Seconds of encoding and of all steps."""
    found = tune(network.to(device), size.tuned, size.epochs, 8, "memory", "float32")
    return {
        "encoding s": found["encode_s"],
        "steps s": found["total_s"] - found["encode_s"],
        "losses": found["losses"],
    }


def annotation(_: AnomalyCLIP, device: torch.device, size: Size) -> dict[str, float]:
    """Predict, tune, predict with what was tuned, as the MONAI Label app does: differences from the CPU."""
    phantom = demo_volume("brain_mr", next(iter(demo_seeds("brain_mr"))))
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), []
        image = write_nifti(folder / "a.nii.gz", phantom.image, phantom.affine)
        label = write_nifti(folder / "a_l.nii.gz", phantom.mask.astype("uint8"), phantom.affine)
        prompts = folder / PROMPTS
        small_network().save_prompts(prompts)
        for place in ("cpu", device):
            own = folder / f"on {place} {len(results)}"
            own.mkdir()
            shutil.copy(prompts, own / PROMPTS)
            model = AnomalyModel(TREE / BUNDLE, own, "float32")
            before = model.predict(image, device=place)
            begun = time.perf_counter()
            # The wheels that are brought there have no TensorBoard.
            settings = {"max_epochs": size.epochs, "summary_writer": mock.Mock()}
            tuned, report = tune_prompts(model, [{"image": image, "label": label}], device=place, **settings)
            seconds = time.perf_counter() - begun
            model.save_prompts(tuned)
            results.append((before.anomaly_map, model.predict(image, device=place).anomaly_map, report.loss_after))
    here, there = results
    return {
        "map before": float((here[0] - there[0]).abs().max()),
        "map after": float((here[1] - there[1]).abs().max()),
        "loss": abs(here[2] - there[2]),
        "tuning s": seconds,
    }


def processes(network: AnomalyCLIP, device: torch.device, size: Size) -> dict[str, Any]:
    """Processes of a group against one process without: one (NCCL on a GPU), and two on one device (Gloo).

    One shows the loss of its batch. Two tune for a few steps, each on its half of the pictures.
    """
    network.to(device)
    images = torch.randn(2, 3, size.image_size, size.image_size, device=device)
    labels = torch.tensor([0, 1], device=device)
    target = {"image_label": labels, "label": images[:, :1] > 2, "has_label": torch.ones_like(labels)}
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as name:
        torch.distributed.init_process_group(backend, init_method=f"file://{name}/group", rank=0, world_size=1)
        try:
            losses = [
                float(GlocalLoss()(module(images, output="logits"), target))
                for module in (network, DistributedDataParallel(network))
            ]
        finally:
            torch.distributed.destroy_process_group()
        learn_together(0, 1, str(device), name)
        begun_with, begun = small_network().state_dict(), time.perf_counter()
        torch.multiprocessing.spawn(learn_together, (2, str(device), name), nprocs=2)
        seconds = time.perf_counter() - begun
        one, two = (torch.load(Path(name) / f"{count}.pt", weights_only=True) for count in (1, 2))
    return {
        "backend": backend,
        "loss": abs(losses[0] - losses[1]),
        "prompts of two": max(float((one[key] - two[key]).abs().max()) for key in one),
        "prompts moved": max(float((one[key] - given.cpu()).abs().max()) for key, given in begun_with.items()),
        "two s": seconds,
    }


def learn_together(rank: int, count: int, device: str, folder: str) -> None:
    """Some steps of tuning on pictures that `count` processes share; the first one saves the prompts."""
    network = small_network().to(device)
    module: torch.nn.Module = network
    if count > 1:
        torch.distributed.init_process_group("gloo", f"file://{folder}/gloo", rank=rank, world_size=count)
        module = DistributedDataParallel(network)
    try:
        own = range(rank * _BATCH // count, (rank + 1) * _BATCH // count)
        items = [Noised(network.image_size)({"image": number}) for number in own]
        batch = {key: value.to(device) for key, value in default_collate(items).items()}
        optimizer = torch.optim.SGD(network.prompts.parameters(), lr=0.01)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            GlocalLoss()(module(batch["image"], output="logits"), batch).backward()
            optimizer.step()
        if rank == 0:
            torch.save({key: value.cpu() for key, value in network.state_dict().items()}, f"{folder}/{count}.pt")
    finally:
        if count > 1:
            torch.distributed.destroy_process_group()


def evaluation(_: AnomalyCLIP, device: torch.device, size: Size) -> dict[str, Any]:
    """The bundle's evaluation and calibration on phantoms, on the device: greatest differences from the CPU's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_datalist(folder, training=0, validation=size.evaluated, testing=size.evaluated, progress=False)
        small_network().save_prompts(folder / PROMPTS)
        begun = time.perf_counter()
        results = [
            (_metrics(folder, place, "evaluate"), _metrics(folder, place, "evaluate", "calibrate"))
            for place in (torch.device("cpu"), device)
        ]
        seconds = time.perf_counter() - begun
    (metrics, thresholds), there = results
    found: dict[str, Any] = {"of the CPU": metrics | thresholds, "both s": seconds}
    for name, expected, measured in (("metrics", metrics, there[0]), ("thresholds", thresholds, there[1])):
        if not expected or expected.keys() != measured.keys():
            raise ValueError(f"There are {sorted(expected)} here and {sorted(measured)} there.")
        found[name] = max(abs(expected[key] - measured[key]) for key in expected)
    return found


def _metrics(folder: Path, device: torch.device, *configs: str) -> dict[str, float]:
    """What the bundle's workflow of an evaluation computes; of a calibration the thresholds."""
    files = [str(TREE / BUNDLE / "configs" / f"{name}.json") for name in ("train", *configs)]
    calibrates = "calibrate" in configs
    workflow = ConfigWorkflow(
        files, workflow_type="train", logging_file=False, bundle_root=str(TREE / BUNDLE), dataset_dir=str(folder),
        prompts=str(folder / PROMPTS), output_dir=str(folder / "output"), device=str(device),
        # The best F1 is as good over a range of thresholds: rounding says which is best.
        **({"rule": "fpr"} if calibrates else {"validate#handlers": []}),
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    return {key: float(value) for key, value in metrics.items() if not calibrates or key.endswith("_threshold")}
