# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a folder as Parquet, for what analyses a hundred thousand inputs."""

from __future__ import annotations

import csv
from pathlib import Path

from monai_anomalyclip.atomic_file import replaced_when_complete

__all__ = ["write_parquet"]

_WHOLE = ("rank", "instance_number")
_TEXT = (
    "name", "kind", "modality", "slice", "threshold_source", "geometry", "warnings", "status", "reason",
)  # fmt: skip


def write_parquet(table: Path) -> Path:
    """Write a table beside itself as Parquet, a block at a time.

    Args:
        table: ``inputs.csv`` or ``scores.csv``.

    Returns:
        the Parquet file.

    Raises:
        RuntimeError: pyarrow is missing.

    Example:
        >>> write_parquet(Path("results/inputs.csv"))
    """
    try:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise RuntimeError("Parquet needs pyarrow: pip install pyarrow.") from error
    with table.open(newline="", encoding="utf-8") as stream:
        columns = next(csv.reader(stream))
    # `slice` is a number or "all".
    types = {name: pa.int64() if name in _WHOLE else pa.string() if name in _TEXT else pa.float64() for name in columns}
    options = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
    target = table.with_suffix(".parquet")
    with (
        replaced_when_complete(target) as unfinished,
        arrow_csv.open_csv(
            table,
            convert_options=options,
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        ) as reader,
    ):
        unfinished.touch(0o600)
        with parquet.ParquetWriter(unfinished, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
    return target
