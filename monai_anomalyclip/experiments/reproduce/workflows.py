# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Tuning and evaluation through a bundle's own configurations, as ``python -m monai.bundle run`` does them."""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from monai_anomalyclip.experiments.reproduce.experiment import METRICS
from monai_anomalyclip.networks import default_device

__all__ = ["BundleRuns"]


@dataclass(frozen=True)
class BundleRuns:
    """A bundle with the overlays that all experiments share.

    Args:
        bundle: folder of the bundle.
        configs: folder of the overlays, ``configs/``.
        further: configuration files behind the bundle's and before the overlays, e.g. with another backbone.
        cache_dir: where features are kept, for all experiments together.
        device: e.g. "cuda:1"; None for the bundle's.
        views: ``scales`` and ``flip`` of evaluations (see :class:`~monai_anomalyclip.inferers.Views`); none for the
            images as they are.
        precision: in which images are encoded, while tuning and while evaluating (see
            :func:`~monai_anomalyclip.networks.resolve_precision`); None for the bundle's.

    Raises:
        FileNotFoundError: the bundle, or one of ``further``, is not there.
    """

    bundle: Path
    configs: Path
    cache_dir: Path
    further: tuple[Path, ...] = ()
    device: str | None = None
    views: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None

    def __post_init__(self) -> None:
        for name in ("train", "evaluate"):
            if not (self.bundle / "configs" / f"{name}.json").is_file():
                raise FileNotFoundError(
                    f"There is no bundle at '{self.bundle}': give a folder with configs/train.json and "
                    "configs/evaluate.json."
                )
        for path in self.further:
            if not path.is_file():
                raise FileNotFoundError(f"There is no configuration file '{path}'.")

    def files(self, workflow: str, overlays: Sequence[str]) -> list[str]:
        """The configuration files of a workflow, "train" or "evaluate", in their order.

        Raises:
            FileNotFoundError: there is no such overlay.
        """
        names = ("train",) if workflow == "train" else ("train", "evaluate")
        laid_over = [self.configs / f"{overlay}.json" for overlay in overlays]
        for path in laid_over:
            if not path.is_file():
                raise FileNotFoundError(f"There is no overlay '{path.name}' in '{path.parent}'.")
        return [
            *(str(self.bundle / "configs" / f"{name}.json") for name in names),
            *map(str, self.further),  # before the overlays: these change what an experiment is about
            *map(str, laid_over),
        ]

    def check_weights(self, overlays: Sequence[str]) -> str:
        """Build the network of an experiment once.

        Returns:
            the name of its backbone.

        Raises:
            FileNotFoundError: the weights of the backbone can be neither found nor fetched.
        """
        workflow = self._workflow("train", overlays, {})
        workflow.initialize()
        name = str(workflow.parser.get_parsed_content("network_def").backbone_name)
        del workflow
        gc.collect()
        return name

    def torch_device(self) -> torch.device:
        """What is computed on."""
        return default_device() if self.device is None else torch.device(self.device)

    def parts(self, overlays: Sequence[str]) -> tuple[Any, Any, Any]:
        """Network on its device, loss and optimizer of an experiment, without any data.

        The optimizer is None where nothing is learned.
        """
        published = {"dice_on_normal_images": True}  # else the loss asks the data, and there are none here
        workflow = self._workflow("train", overlays, published)
        network = workflow.parser.get_parsed_content("network_def")
        network.to(workflow.parser.get_parsed_content("device"))
        learned = [value for value in network.parameters() if value.requires_grad]
        optimizer = workflow.parser.get_parsed_content("optimizer") if learned else None
        return network, workflow.parser.get_parsed_content("loss"), optimizer

    def tune(
        self, overlays: Sequence[str], *, datalist: Path, folder: Path, seed: int, max_epochs: int | None = None
    ) -> Path:
        """Tune on the section "training" of a datalist; a run that was broken off goes on.

        Args:
            overlays: files below ``configs``, without suffix.
            datalist: images.
            folder: of checkpoints and prompts.
            seed: of everything that is drawn.
            max_epochs: epochs of the whole run; None for the bundle's.

        Returns:
            the prompts, or whatever the method learns.
        """
        settings: dict[str, Any] = {
            "datalist": str(datalist),
            "output_dir": str(folder / "tuning"),
            "model_dir": str(folder / "models"),
            "seed": seed,
        }
        if max_epochs is not None:
            settings["max_epochs"] = max_epochs
        self._run("train", overlays, settings)
        return folder / "models" / "model.pt"

    def evaluate(
        self,
        overlays: Sequence[str],
        *,
        datalist: Path,
        folder: Path,
        prompts: Path | None,
        class_word: str | None = None,
        object_words: bool = False,
        intervals: bool = False,
    ) -> dict[str, float]:
        """Evaluate on the section "testing" of a datalist.

        Args:
            overlays: files below ``configs``, without suffix.
            datalist: images.
            folder: of what the evaluation writes.
            prompts: what was learned; None for a method that learns nothing.
            class_word: what the prompts speak of.
            object_words: whether the word takes the place of "object" in learned prompts; else the network takes it as
                its ``class_name``.

        Returns:
            those of :data:`.METRICS` that the bundle computes, and ``metric/class`` where
            it computes them per class; fractions, NaN where undefined.
        """
        settings: dict[str, Any] = {"datalist": str(datalist), "output_dir": str(folder)}
        if intervals:
            settings["bootstrap_pixels"] = True
        if self.views:
            settings |= {**self.views, "feature_cache": "off"}  # other views have other features
        if prompts is not None:
            settings["prompts"] = str(prompts)
        if class_word is not None and object_words:
            settings["network_def#normal_words"] = [class_word]
            settings["network_def#abnormal_words"] = [f"damaged {class_word}"]
        elif class_word is not None:
            settings["network_def#class_name"] = class_word
        workflow = self._run("evaluate", overlays, settings)
        state = workflow.parser.get_parsed_content("validate#evaluator").state
        return _known(state.metrics)

    def _run(self, kind: str, overlays: Sequence[str], settings: Mapping[str, Any]) -> ConfigWorkflow:
        gc.collect()  # a network and its features are parts of cycles: the last one's go before the next one's come
        workflow = self._workflow(kind, overlays, settings)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return workflow

    def _workflow(self, kind: str, overlays: Sequence[str], settings: Mapping[str, Any]) -> ConfigWorkflow:
        logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # that there is no logging.conf is meant
        common: dict[str, Any] = {
            "bundle_root": str(self.bundle.absolute()),
            "dataset_dir": str(self.bundle.absolute()),  # not used, and the demonstration's own would draw phantoms
            "cache_dir": str(self.cache_dir.absolute()),
        }
        common |= {
            name: value for name, value in (("device", self.device), ("precision", self.precision)) if value is not None
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
            return ConfigWorkflow(
                self.files(kind, overlays), workflow_type="train", logging_file=False, **{**common, **settings}
            )


def _known(metrics: Mapping[str, Any]) -> dict[str, float]:
    known = {*METRICS, *(f"{name}_{end}" for name in METRICS for end in ("low", "high"))}
    values = {name: value for name, value in metrics.items() if name.partition("/")[0] in known}
    return {name: math.nan if value is None else float(value) for name, value in values.items()}
