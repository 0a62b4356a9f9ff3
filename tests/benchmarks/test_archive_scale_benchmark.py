# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "archive_scale.py"


def test_memory_does_not_grow_with_records(tmp_path: Path) -> None:
    """One record at a time: 1,500 more take less than 8 MiB, of which all at once would take 60."""
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main(["--sizes", "700", "2200", "--json", str(tmp_path / "figures.json")]) == 0
    first, second = json.loads((tmp_path / "figures.json").read_text())
    assert (first["inputs"], second["inputs"]) == (700, 2200)
    assert first["status"] == second["status"] == 0
    assert (first["pages"], second["pages"]) == (7, 22)
    assert second["peak_mib"] < min(300, first["peak_mib"] + 20)
    assert second["report.html_mib"] < 25
