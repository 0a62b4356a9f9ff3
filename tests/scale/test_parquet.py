# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from monai_anomalyclip.scale.parquet import write_parquet
from monai_anomalyclip.writers.tables import INPUT_COLUMNS, SCORE_COLUMNS, table_line


def test_kinds_of_columns_do_not_depend_on_what_is_in_them(tmp_path: Path) -> None:
    """A first block without numbers, or with texts like numbers, gives the same columns as any other."""
    rows: list[dict[str, object]] = [{"name": "1", "rank": 1, "reason": 'cut,\n"here"', "status": "failed"}]
    rows += [{"name": f"ct_{index}", "rank": 2, "anomaly_score": 0.25, "slice": "all"} for index in range(20000)]
    for columns, name in ((INPUT_COLUMNS, "inputs"), (SCORE_COLUMNS, "scores")):
        table = tmp_path / f"{name}.csv"
        table.write_text(",".join(columns) + "\n" + "".join(table_line(columns, row) for row in rows))
        path = write_parquet(table)
        assert path.stat().st_mode & 0o777 == 0o600
        read = pyarrow.parquet.read_table(path)
        assert read.num_rows == len(rows)
        assert read.column("name")[0].as_py() == "1"
        assert read.column("reason")[0].as_py() == 'cut,\n"here"'
        assert read.column("anomaly_score").to_pylist()[:2] == [None, 0.25]
        assert str(read.schema.field("slice").type) == "string"
        assert str(read.schema.field("anomaly_score").type) == "double"


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeError, match=r"pip install pyarrow"):
        write_parquet(tmp_path / "inputs.csv")
