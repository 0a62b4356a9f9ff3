# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Files by which schedulers share a work among many tasks, written from templates."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath

import jinja2

from monai_anomalyclip import RESEARCH_USE_ONLY

__all__ = ["KINDS", "MOST_PARTS", "scheduler_file"]

KINDS = ("slurm", "kubernetes", "snakemake", "nextflow", "wdl")
"""What there is a template of."""

MOST_PARTS = 10_000


def scheduler_file(
    kind: str,
    *,
    work_list: str,
    results: str,
    bundle: str = "anomalyclip",
    parts: int = 8,
    image: str = "monai-anomalyclip:latest",
    claim: str = "studies",
) -> str:
    """The text of a file that makes a scheduler run ``predict --part`` for every part.

    Args:
        kind: one of :data:`KINDS`.
        work_list: path of the list, as the tasks see it.
        results: path of the output folder, likewise.
        bundle: folder or name of the bundle, likewise.
        parts: number of parts, 1 to 10,000.
        image: the container image (Kubernetes, WDL).
        claim: the persistent volume claim that holds list and results (Kubernetes).

    Raises:
        ValueError: an unknown kind, or a value that cannot stand in such a file.

    Example:
        >>> print(scheduler_file("slurm", work_list="/data/work.jsonl", results="/data/results", parts=8))
    """
    if kind not in KINDS:
        raise ValueError(f"There is no template of {kind!r}: choose from {', '.join(KINDS)}.")
    if not 1 <= parts <= MOST_PARTS:
        raise ValueError(f"The number of parts must be 1 to {MOST_PARTS}, got {parts}.")
    values = {"work_list": work_list, "results": results, "bundle": bundle, "image": image, "claim": claim}
    for name, value in values.items():
        # Such a character would end a quotation in one of the languages, or begin an expression there.
        if not value or not value.isprintable() or set(value) & set("'\"\\$`{}~"):
            raise ValueError(
                f"The {name.replace('_', ' ')} {value!r} cannot stand in a template: choose a plainer path."
            )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monai_anomalyclip", "scale/templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML: each value is quoted for its language
    )
    return environment.get_template(f"{kind}.jinja").render(
        **values,
        notice=RESEARCH_USE_ONLY,
        parts=parts,
        mount=str(PurePosixPath(results).parent),
        sh=shlex.quote,
        json=json.dumps,
        py=repr,
        groovy=lambda text: f"'{text}'",
    )
