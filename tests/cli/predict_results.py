# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Looks into the folder that `predict` wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


def results_of(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "results.json").read_text())
    return document


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def times_of(out: Path) -> dict[Path, int]:
    """When the results of inputs were written."""
    own = ("inputs.csv", "scores.csv", "results.json", "report.html", "NOTICE.txt")
    paths = [path for path in out.rglob("*") if path.is_file() and path.name not in own and ".report" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in paths if not path.name.endswith("_record.json")}
