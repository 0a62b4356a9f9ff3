# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

from large_volume import MEBIBYTE, make_ct, run_apart

FEW, MANY, SIZE = 16, 48, 512


def test_slices_are_batched_the_text_is_encoded_once_and_memory_is_bounded(tmp_path: Path) -> None:
    """The real network over a CT; benchmarks/large_volume.py does it at full size."""
    figures = {}
    for slices in (FEW, MANY):
        folder = tmp_path / str(slices)
        make_ct(folder / "ct", slices, SIZE)
        options = ("--slice-batch-size", "8")
        figures[slices] = run_apart(folder / "ct", folder / "out", tmp_path / "prompts.pt", *options)
    for slices, one in figures.items():
        assert one["status"] == 0
        assert one["slices"] == slices
        assert (one["batches"], one["largest_batch"]) == (math.ceil(slices / 8), 8)
        assert one["text_encodings"] == 1
    volume = 4 * (MANY - FEW) * SIZE**2 / MEBIBYTE  # of the slices that one has more, as float32
    grown = figures[MANY]["peak_mib"] - figures[FEW]["peak_mib"]
    assert grown < 10 * volume, f"{grown / volume:.1f} times the volume"
