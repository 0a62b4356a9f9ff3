# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a table consists of: methods, experiments, groups of them, values over seeds. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

__all__ = [
    "COUNTS",
    "LABELS",
    "METHODS",
    "METRICS",
    "TIMES",
    "Experiment",
    "Group",
    "Method",
    "Spread",
    "Table",
    "mean_over_sets",
]

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_aupro": "AUPRO",
    "pixel_aupro_200": "PRO (200 thresholds)",
}
"""Names of the metrics in the evaluator's state, and in tables. Published PRO is compared with ``pixel_aupro_200``."""

COUNTS = {"classes": "classes", "normal": "normal images", "anomalous": "anomalous images"}
"""What is counted of a data set (table 6)."""

TIMES = {"minutes_per_epoch": "minutes per epoch", "images_per_second": "images per second"}
"""What is timed of a method (table 8)."""

LABELS = {**METRICS, **COUNTS, **TIMES}
"""Titles of the columns of tables."""


@dataclass(frozen=True)
class Method:
    """A way to find anomalies.

    Args:
        name: on the command line and in results.
        title: in tables.
        config: overlay below ``configs/``, without its suffix; None for the bundles' own network.
        tuned: whether it learns something.
        class_word: whether its network takes the ``class_name`` that the paper's baselines were told.
        full_shot: whether it learns from normal images of what it is tested on (table 12), class by class.
        in_paper: whether the AnomalyCLIP paper compares with it.
    """

    name: str
    title: str
    config: str | None = None
    tuned: bool = False
    class_word: bool = False
    full_shot: bool = False
    in_paper: bool = True


METHODS = {
    method.name: method
    for method in (
        Method("anomalyclip", "AnomalyCLIP", tuned=True),
        Method("clip", "CLIP", "methods/clip", class_word=True),
        Method("clip-ac", "CLIP-AC", "methods/clip_ac", class_word=True),
        Method("coop", "CoOp", "methods/coop", tuned=True),
        Method("winclip", "WinCLIP", "methods/winclip", class_word=True),
        Method("vand", "VAND", "methods/vand", tuned=True),
        Method("retrieval", "Retrieval", "methods/retrieval", tuned=True, in_paper=False),
        Method("patchcore", "PatchCore", full_shot=True),
        Method("rd4ad", "RD4AD", full_shot=True),
        Method("own-normals", "Own normals", full_shot=True, in_paper=False),
    )
}
"""The six methods of the paper's tables, the two of table 12, and two that are not in it, by name."""


@dataclass(frozen=True)
class Experiment:
    """One row of a table: a method with overlays, what it is tuned on, what it is tested on.

    Args:
        title: name of the row.
        tested_on: names of data sets.
        tuned_on: name of the auxiliary data set; None when nothing is learned.
        method: name of one of :data:`METHODS`.
        overlays: files below ``configs/``, without their suffix, laid over the bundle's in this order.
        given_prompts: whether prompts that the user has are evaluated instead of tuned ones.
        object_words: whether each class's name takes the place of "object" after tuning (figure 9).
        paper: what the paper's table calls the row (or the column); None for the method's title.
        paper_table: number of the paper's table with its figures; None for that of the table that it is a row of.

    Raises:
        ValueError: an unknown method, something tested on what it was tuned on, or given prompts without a set.
    """

    title: str
    tested_on: tuple[str, ...]
    tuned_on: str | None = None
    method: str = "anomalyclip"
    overlays: tuple[str, ...] = ()
    given_prompts: bool = False
    object_words: bool = False
    paper: str | None = None
    paper_table: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"There is no method '{self.method}': choose one of {', '.join(METHODS)}.")
        if self.tuned_on in self.tested_on:
            raise ValueError(f"'{self.title}' would be tested on '{self.tuned_on}', which it is tuned on.")
        if self.given_prompts and self.tuned_on is None:
            raise ValueError(f"'{self.title}' must say what the given prompts were tuned on.")

    @property
    def configs(self) -> tuple[str, ...]:
        """All its overlays below ``configs/``, the method's first."""
        own = METHODS[self.method].config
        return self.overlays if own is None else (own, *self.overlays)

    @property
    def learns(self) -> bool:
        """Whether something is tuned for it here, so that seeds matter."""
        return self.tuned_on is not None and not self.given_prompts

    @property
    def told_classes(self) -> bool:
        """Whether its prompts name the class that an image is of, where the data set has classes."""
        return METHODS[self.method].class_word or self.object_words

    @property
    def key(self) -> str:
        """Name of the folder of its results: tables that need the same run share it."""
        return f"{self.tuning_key}+object_words" if self.object_words else self.tuning_key

    @property
    def tuning_key(self) -> str:
        """Name of the folder of what it learns: words that are put in after tuning make no other one."""
        parts = [self.method, *(overlay.rpartition("/")[2] for overlay in self.overlays)]
        return f"{'given_' if self.given_prompts else ''}{self.tuned_on or 'untuned'}/{'+'.join(parts)}"


@dataclass(frozen=True)
class Group:
    """Rows of a table that belong together.

    Args:
        title: what varies among them.
        experiments: the rows.
        means_only: whether the Markdown table shows only their means over the data sets.
    """

    title: str
    experiments: tuple[Experiment, ...]
    means_only: bool = False


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper, or one of our own.

    Args:
        name: on the command line.
        title: heading.
        varies: what it varies, in a sentence.
        groups: its rows.
        remark: what of it is not known from a source; empty when all is.
        metrics: which of :data:`METRICS`, :data:`COUNTS` and :data:`TIMES` it shows.
        per_class: whether it shows the classes of the data sets.
        keep_features: whether features of the frozen encoder are kept on disk while it is made.
        max_epochs: epochs of tuning; None for the bundle's.
        demo: whether it is made on the demonstration's phantoms with its backbone.
        verdicts: whether it says how far ours agrees with the paper's: prompts are those of the bundle, and intervals
            are computed.
    """

    name: str
    title: str
    varies: str
    groups: tuple[Group, ...]
    remark: str = ""
    metrics: tuple[str, ...] = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro_200", "pixel_aupro")
    per_class: bool = False
    keep_features: bool = False
    max_epochs: int | None = None
    demo: bool = False
    verdicts: bool = False

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """All rows."""
        return tuple(experiment for group in self.groups for experiment in group.experiments)

    def of_methods(self, names: Sequence[str]) -> Table:
        """The same table with the rows of some methods only."""
        kept = (
            replace(group, experiments=tuple(row for row in group.experiments if row.method in names))
            for group in self.groups
        )
        return replace(self, groups=tuple(group for group in kept if group.experiments))


@dataclass(frozen=True)
class Spread:
    """Mean and range of a value over seeds.

    Args:
        seeds: the value by seed, in per cent; undefined ones left out.
    """

    seeds: Mapping[int, float]

    @classmethod
    def of_fractions(cls, values: Mapping[int, float]) -> Spread | None:
        """From fractions by seed, NaN where undefined; None when none is defined."""
        defined = {seed: 100 * value for seed, value in values.items() if not math.isnan(value)}
        return cls(defined) if defined else None

    @property
    def mean(self) -> float:
        return math.fsum(self.seeds.values()) / len(self.seeds)

    @property
    def low(self) -> float:
        return min(self.seeds.values())

    @property
    def high(self) -> float:
        return max(self.seeds.values())


def mean_over_sets(spreads: Sequence[Spread | None]) -> Spread | None:
    """Mean over data sets, seed by seed.

    Args:
        spreads: of one metric, one per data set; None where the metric is undefined on it: left out.

    Returns:
        over the seeds that all data sets have; None when there is none.
    """
    defined = [spread.seeds for spread in spreads if spread is not None]
    if not defined:
        return None
    common = [seed for seed in defined[0] if all(seed in seeds for seeds in defined)]
    means = {seed: math.fsum(seeds[seed] for seeds in defined) / len(defined) for seed in common}
    return Spread(means) if means else None
