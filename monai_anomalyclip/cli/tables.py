# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["text_table"]


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns by spaces; the first row is the heading and gets a line below it.

    Raises:
        ValueError: rows have different lengths.
    """
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"Rows have {sorted({len(row) for row in rows})} columns: they must all have the same number.")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
