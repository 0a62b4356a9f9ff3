# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
from __future__ import annotations

import math
from pathlib import Path

import pytest
from large_volume import make_ct, run_counted

SLICES, SIZE = 45, 512
VOLUME = 4 * SLICES * SIZE**2  # bytes as float32


def memory(field: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or held at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def test_slices_are_batched_the_text_is_encoded_once_and_memory_is_bounded(tmp_path: Path) -> None:
    """The real network over a CT, in this process; benchmarks/large_volume.py does it at full size."""
    forget = Path("/proc/self/clear_refs")
    if not forget.exists():
        pytest.skip("only Linux tells a process how much memory it held")
    make_ct(tmp_path / "ct", SLICES, SIZE)
    small = tmp_path / "small"
    make_ct(small, 2, 32)  # what is imported and made once does not count
    run_counted(small, tmp_path / "small out", tmp_path / "prompts.pt")
    forget.write_text("5")
    before = memory("VmRSS")
    figures = run_counted(tmp_path / "ct", tmp_path / "out", tmp_path / "prompts.pt", "--slice-batch-size", "8")
    assert figures["status"] == 0
    assert figures["slices"] == SLICES
    assert (figures["batches"], figures["largest_batch"]) == (math.ceil(SLICES / 8), 8)
    assert figures["text_encodings"] == 1
    grown = memory("VmHWM") - before
    assert grown < 12 * VOLUME, f"{grown / VOLUME:.1f} times the volume"
