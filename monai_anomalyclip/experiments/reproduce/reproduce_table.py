# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Make a table from the data and weights that are there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from monai_anomalyclip.bundles.shipped import shipped_folder
from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.reproduce.data_folders import DataFolder, ImageSource, PhantomSource
from monai_anomalyclip.experiments.reproduce.document import table_document, write_table
from monai_anomalyclip.experiments.reproduce.experiment import METHODS
from monai_anomalyclip.experiments.reproduce.runner import FIRST_SEED, Outcome, TableRun
from monai_anomalyclip.experiments.reproduce.tables import TABLES
from monai_anomalyclip.experiments.reproduce.workflows import BundleRuns
from monai_anomalyclip.inferers import Views
from monai_anomalyclip.networks import resolve_precision

__all__ = ["reproduce_table"]


def reproduce_table(
    name: str,
    data: Path | None,
    output: Path,
    *,
    bundle: Path | None = None,
    seeds: int = 1,
    methods: Sequence[str] | None = None,
    max_epochs: int | None = None,
    device: str | None = None,
    keep_features: bool = False,
    further: Sequence[Path] = (),
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    precision: str | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], Outcome]:
    """Run what can be run of a table, and write it after every experiment.

    What is finished in ``output`` is left out, also when another table did it.

    Args:
        name: one of :data:`~monai_anomalyclip.experiments.reproduce.TABLES`.
        data: folder of the data sets (see :class:`.DataFolder`). For the
            demonstration a folder of phantoms, made when absent; None for the bundle's.
        output: folder of the table and of all runs.
        bundle: the bundle; None for the demonstration's or the real one, by the table.
        seeds: number of seeds, from 111 on.
        methods: rows of these methods only; None for all.
        max_epochs: epochs of tuning; None for the table's, or the bundle's.
        device: e.g. "cuda:1"; None for the bundle's.
        keep_features: whether the frozen encoder's features are kept in ``output``, for all seeds and experiments that
            see images alike; at 518 pixels 4.2 MB per image and layer, plus 1.1 MB for the mask.
        further: configuration files that come last.
        scales: of evaluations (see :class:`~monai_anomalyclip.inferers.Views`).
        flip: likewise.
        precision: in which images are encoded (see :func:`~monai_anomalyclip.networks.resolve_precision`); None for the
            bundle's, float32.
        say: takes lines on the progress.

    Returns:
        the table as :func:`.table_document` gives it, and what it is made of.

    Raises:
        ValueError: an unknown table or method, no seed, or a table without data.
        FileNotFoundError: the bundle or a configuration file is missing.
        NotADirectoryError: the data folder is missing.
    """
    if name not in TABLES:
        raise ValueError(f"There is no table '{name}': choose one of {', '.join(TABLES)}.")
    if unknown := [method for method in methods or () if method not in METHODS]:
        raise ValueError(f"There is no method '{unknown[0]}': choose of {', '.join(METHODS)}.")
    if seeds < 1 or (max_epochs is not None and max_epochs < 1):
        raise ValueError(f"There must be at least one seed and one epoch, got {seeds} and {max_epochs}.")
    table = TABLES[name] if methods is None else TABLES[name].of_methods(methods)
    if keep_features:
        table = replace(table, keep_features=True)
    output = output.absolute()
    if bundle is None:
        bundle = shipped_folder("bundles/anomalyclip_demo" if table.demo else "bundles/anomalyclip")
    # A table that keeps features unasked clears them away when it is made.
    features = output / ("features" if keep_features else "temporary_features")
    views = {} if Views(scales, flip).plain else {"scales": list(scales), "flip": flip}
    runs = BundleRuns(bundle, shipped_folder("configs"), features, tuple(further), device, views)
    if precision is not None:
        runs = replace(runs, precision=resolve_precision(precision, runs.torch_device()))
    run = TableRun(
        table, runs, _source(data, bundle, output, demo=table.demo), output, range(FIRST_SEED, FIRST_SEED + seeds),
        max_epochs, say,
    )  # fmt: skip
    settings = {
        "bundle": bundle.resolve().name,
        "seeds": list(run.seeds),
        "epochs": "of the bundle" if run.max_epochs is None else run.max_epochs,
        "further configurations": [path.name for path in further],
        "views": [f"{name} {value}" for name, value in views.items()],
        "precision": runs.precision,
        "torch": torch.__version__,
    }
    run.save = lambda outcome: write_table(table_document(table, outcome, settings), output)
    outcome = run.run()
    if not keep_features:
        shutil.rmtree(features, ignore_errors=True)
    document = table_document(table, outcome, settings)
    write_table(document, output)
    return document, outcome


def _source(data: Path | None, bundle: Path, output: Path, *, demo: bool) -> ImageSource:
    if not demo:
        if data is None:
            raise ValueError("Give the folder of the data sets (--data DIR).")
        return DataFolder(data, output / "datalists")
    folder = bundle / "data" if data is None else data
    datalist = folder / "datalist.json"
    if not datalist.is_file():
        write_datalist(folder, progress=sys.stderr.isatty())
    return PhantomSource(datalist, output / "datalists")
