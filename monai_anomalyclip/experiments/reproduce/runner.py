# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Run what can be run of a table: tune and evaluate each experiment with each seed, and leave out what is finished."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.experiments.reproduce.data_folders import ImageSet, ImageSource, NotFoundError, Purpose, of_class
from monai_anomalyclip.experiments.reproduce.experiment import (
    COUNTS,
    LABELS,
    METHODS,
    METRICS,
    TIMES,
    Experiment,
    Spread,
    Table,
)
from monai_anomalyclip.experiments.reproduce.journal import RunFolder
from monai_anomalyclip.experiments.reproduce.timing import time_method
from monai_anomalyclip.experiments.reproduce.workflows import BundleRuns
from monai_anomalyclip.networks.devices import autocast

__all__ = ["FIRST_SEED", "Outcome", "TableRun"]

logger = logging.getLogger(__name__)

FIRST_SEED = 111
"""The seed of the authors' code; further ones count on from it."""

_FEATURES_ON_DISK = "experiments/features_on_disk"


@dataclass
class Outcome:
    """What came of a table. Keys are an experiment's key and a data set.

    Attributes:
        scores: metrics by seed, fractions, NaN where undefined.
        not_run: why nothing could be run.
        failed: what went wrong, with the first seed for which it did.
        images: what was tuned and tested on, by name and purpose.
        backbone: name of the CLIP that it was made with; None where none was built.
    """

    scores: dict[tuple[str, str], dict[int, dict[str, float]]] = field(default_factory=dict)
    not_run: dict[tuple[str, str], str] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    images: dict[tuple[str, str], ImageSet] = field(default_factory=dict)
    backbone: str | None = None

    def spread(self, experiment: Experiment, tested_on: str, metric: str) -> Spread | None:
        """A metric over the seeds, in per cent (counts and times as they are); None where it is absent or undefined."""
        by_seed = self.scores.get((experiment.key, tested_on), {})
        values = {seed: values[metric] for seed, values in by_seed.items() if metric in values}
        if metric in COUNTS or metric in TIMES:
            return Spread(values) if values else None
        return Spread.of_fractions(values)


@dataclass
class TableRun:
    """A table to be run.

    Args:
        table: the table.
        runs: how to tune and evaluate.
        source: where images come from.
        output: folder of the runs; tables share it, and what is finished there is left out.
        seeds: for experiments that learn something; others take the first.
        max_epochs: epochs of tuning; None for the table's, or the bundle's.
        say: takes a line on progress.
        save: takes the outcome so far, whenever an experiment is done.
    """

    table: Table
    runs: BundleRuns
    source: ImageSource
    output: Path
    seeds: Sequence[int] = (FIRST_SEED,)
    max_epochs: int | None = None
    say: Callable[[str], None] = print
    save: Callable[[Outcome], object] = lambda outcome: None

    def __post_init__(self) -> None:
        self.max_epochs = self.table.max_epochs if self.max_epochs is None else self.max_epochs
        self.outcome = Outcome()
        self._reasons: dict[tuple[str, str], str] = {}
        self._weights_missing: str | None = None
        self._weights_checked = False

    def run(self) -> Outcome:
        """Run every experiment; one that fails does not stop the others.

        Raises:
            FileNotFoundError: an overlay is missing.
        """
        for experiment in self.table.experiments:
            if not METHODS[experiment.method].full_shot:
                self.runs.files("train", experiment.configs)
        distinct: dict[str, tuple[Experiment, list[str]]] = {}
        for experiment in self.table.experiments:
            _, tests = distinct.setdefault(experiment.key, (experiment, []))
            tests += [name for name in experiment.tested_on if name not in tests]
        for number, (experiment, tests) in enumerate(distinct.values(), start=1):
            for seed in self.seeds if experiment.learns else self.seeds[:1]:
                seeded = f", seed {seed}" if experiment.learns else ""
                self.say(f"[{number}/{len(distinct)}] {experiment.key}{seeded}")
                self._run_one(experiment, tests, seed)
            self.save(self.outcome)
        return self.outcome

    def _run_one(self, experiment: Experiment, tests: Sequence[str], seed: int) -> None:
        available = {}
        for name in tests:
            try:
                available[name] = self._images(name, "testing")
            except NotFoundError as error:
                self._note(self.outcome.not_run, experiment, [name], str(error))
            except Exception as error:  # e.g. a datalist of the user's that is damaged
                self._note(self.outcome.failed, experiment, [name], self._sentence(error))
        if not available:
            return
        if set(self.table.metrics) <= set(COUNTS):
            self._count(experiment, available)
            return
        if METHODS[experiment.method].full_shot:
            self._run_full_shot(experiment, available, seed)
            return
        folder = RunFolder(self.output / "runs" / experiment.key)
        try:
            self._check_weights(experiment)
            prompts = self._prompts(experiment, RunFolder(self.output / "runs" / experiment.tuning_key), seed)
            times = self._times(experiment)
        except NotFoundError as error:
            self._note(self.outcome.not_run, experiment, available, str(error))
            return
        except Exception as error:  # whatever it is, the other experiments go on
            self._note(self.outcome.failed, experiment, available, self._sentence(error))
            return
        for name, images in available.items():
            try:
                self._evaluate(experiment, folder, seed, prompts, name, images)
                self.outcome.scores[experiment.key, name][seed] |= times
            except Exception as error:
                self._note(self.outcome.failed, experiment, [name], self._sentence(error))

    def _overlays(self, experiment: Experiment) -> tuple[str, ...]:
        # First, because methods whose features cannot be kept say so themselves.
        return (*([_FEATURES_ON_DISK] if self.table.keep_features else []), *experiment.configs)

    def _prompts(self, experiment: Experiment, folder: RunFolder, seed: int) -> Path | None:
        if experiment.tuned_on is None:
            return None
        if self.table.verdicts:
            prompts = self.runs.bundle / "models" / "model.pt"
            if not prompts.is_file():
                raise NotFoundError("the bundle has no prompts: give --bundle the folder that `weights bundle -o` made")
            return prompts.absolute()
        if experiment.given_prompts:
            return self.source.prompts(experiment.tuned_on).absolute()
        images = self._images(experiment.tuned_on, "training")
        inside = folder.of_seed(seed)
        settings = {
            "images": images.images,
            "anomalous images": images.anomalous,
            "epochs": self.max_epochs,
            "configuration": RunFolder.digest(self.runs.files("train", experiment.configs)),
            "precision": self.runs.precision,
        }
        if inside.is_tuned(settings):
            self.say("    tuned already")
            return inside.prompts
        inside.begin_tuning(settings)
        begun = time.monotonic()
        prompts = self.runs.tune(
            self._overlays(experiment),
            datalist=images.datalist,
            folder=inside.path,
            seed=seed,
            max_epochs=self.max_epochs,
        )
        self.say(f"    tuned in {time.monotonic() - begun:.0f} s")
        return prompts

    def _evaluate(
        self,
        experiment: Experiment,
        folder: RunFolder,
        seed: int,
        prompts: Path | None,
        name: str,
        images: ImageSet,
    ) -> None:
        inside = folder.of_seed(seed) if experiment.learns else folder
        words = _words(images) if experiment.told_classes else {}
        settings = {
            "images": images.images,
            "anomalous images": images.anomalous,
            "class words": words,
            "prompts": None if prompts is None else RunFolder.digest([prompts]),
            "configuration": RunFolder.digest(self.runs.files("evaluate", experiment.configs)),
            **({"views": dict(self.runs.views)} if self.runs.views else {}),
            **({"precision": self.runs.precision} if self.runs.precision else {}),
        }
        metrics = inside.result(name, settings)
        begun = None if metrics is not None else time.monotonic()
        if metrics is None:
            by_class: dict[str, dict[str, float]] = {}
            for number, (class_name, word) in enumerate(words.items() or [("", None)], start=1):
                part = of_class(images, class_name) if len(words) > 1 else images
                by_class[class_name] = self.runs.evaluate(
                    self._overlays(experiment),
                    datalist=part.datalist,
                    folder=inside.path / name / (f"class-{number}" if len(words) > 1 else ""),
                    prompts=prompts,
                    class_word=word,
                    object_words=experiment.object_words,
                    intervals=self.table.verdicts,
                )
            metrics = _joined(by_class) if len(by_class) > 1 else next(iter(by_class.values()))
            inside.write_result(name, settings, metrics)
        self._add(experiment, name, seed, metrics, begun)

    def _run_full_shot(self, experiment: Experiment, available: dict[str, ImageSet], seed: int) -> None:
        """Fit and measure a method that learns from normal images, class by class."""
        from monai_anomalyclip.experiments.fullshot import run_full_shot  # needs anomalib, which is an extra

        options = {"epochs": self.max_epochs} if experiment.method == "rd4ad" and self.max_epochs is not None else {}
        needs_weights = METHODS[experiment.method].in_paper  # ours comes with its encoder
        for name in available:
            folder = self.output / "runs" / experiment.key / name
            try:
                begun = time.monotonic()
                results = run_full_shot(
                    experiment.method,
                    self.source.original(name),
                    folder,
                    weights=self.source.image_net_weights() if needs_weights else None,
                    device=self.runs.torch_device(),
                    seed=seed,
                    options=options,
                    say=lambda line: self.say(f"    {line}"),
                )
                self._add(experiment, name, seed, results.metrics(), begun)
            except (NotFoundError, ImportError) as error:
                self._note(self.outcome.not_run, experiment, [name], str(error))
            except Exception as error:
                self._note(self.outcome.failed, experiment, [name], self._sentence(error))

    def _count(self, experiment: Experiment, available: dict[str, ImageSet]) -> None:
        for name, images in available.items():
            counts = (len(images.classes), images.images - images.anomalous, images.anomalous)
            counted = dict(zip(COUNTS, map(float, counts), strict=True))
            self.outcome.scores.setdefault((experiment.key, name), {})[self.seeds[0]] = counted

    def _times(self, experiment: Experiment) -> dict[str, float]:
        """How long the method takes on this machine, for a table that shows it."""
        if not set(self.table.metrics) & set(TIMES):
            return {}
        with autocast(self.runs.precision or "float32", self.runs.torch_device()):
            times = time_method(*self.runs.parts(experiment.configs))
        self.say(f"    {', '.join(f'{LABELS[name]} {value:.2f}' for name, value in times.items())}")
        return times

    def _add(
        self, experiment: Experiment, name: str, seed: int, metrics: dict[str, float], begun: float | None
    ) -> None:
        self.outcome.scores.setdefault((experiment.key, name), {})[seed] = dict(metrics)
        took = " already" if begun is None else f" in {time.monotonic() - begun:.0f} s"
        shown = [f"{METRICS[one]} {100 * metrics[one]:.1f}" for one in self.table.metrics if one in metrics]
        self.say(f"    {name}, tested{took}: {', '.join(shown)}")

    def _images(self, name: str, purpose: Purpose) -> ImageSet:
        if (name, purpose) in self._reasons:
            raise NotFoundError(self._reasons[name, purpose])
        if (name, purpose) not in self.outcome.images:
            try:
                self.outcome.images[name, purpose] = self.source.find(name, purpose)
            except NotFoundError as error:
                self._reasons[name, purpose] = f"{name}: {error}"
                raise NotFoundError(self._reasons[name, purpose]) from error
        return self.outcome.images[name, purpose]

    def _check_weights(self, experiment: Experiment) -> None:
        """Build a network once, so that a missing backbone is found before anything is tuned.

        Raises:
            NotFoundError: the weights are neither there nor to be had.
        """
        if not self._weights_checked:
            try:
                self.outcome.backbone = self.runs.check_weights(experiment.configs)
            except Exception as error:
                if not isinstance(cause_of(error), FileNotFoundError):
                    raise
                self._weights_missing = self._sentence(error)
            self._weights_checked = True
        if self._weights_missing is not None:
            raise NotFoundError(self._weights_missing)

    def _note(
        self, where: dict[tuple[str, str], str], experiment: Experiment, tests: Iterable[str], reason: str
    ) -> None:
        kind = "not run" if where is self.outcome.not_run else "failed"
        for name in tests:
            where.setdefault((experiment.key, name), reason)
        self.say(f"    {kind}, {', '.join(tests)}: {reason}")

    def _sentence(self, error: BaseException) -> str:
        """The first line of what was wrong, without the folder of the results."""
        cause = cause_of(error)
        logger.info("Traceback of what failed:", exc_info=error)
        text = str(cause).strip().partition("\n")[0] or type(cause).__name__
        return text.replace(f"{self.output}/", "").rstrip(".")


def _words(images: ImageSet) -> dict[str, str]:
    """By class, what the prompts are told of it; nothing where the data set has no classes."""
    return {name: name.replace("_", " ") for name in images.classes}


def _joined(by_class: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics of classes that were evaluated one by one: their means where defined, and each as "metric/class"."""
    joined: dict[str, float] = {}
    for metric in next(iter(by_class.values())):
        if "/" in metric or metric.endswith(("_low", "_high")):
            continue
        values = {name: metrics.get(metric, math.nan) for name, metrics in by_class.items()}
        defined = [value for value in values.values() if not math.isnan(value)]
        joined[metric] = math.fsum(defined) / len(defined) if defined else math.nan
        joined |= {f"{metric}/{name}": value for name, value in values.items()}
    return joined
