# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a reference of many normal images costs: processor time, memory and the file, for growing numbers of images.

Each number is measured in a process of its own, whose peak memory is its alone. Images are noise over stripes, made
one by one. With --quick a few random filters take the place of the encoder, so that the bank is what is left.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, write_record
from torch import Tensor, nn

from monai_anomalyclip.reference import NormalReference, PatchEncoder
from monai_anomalyclip.reference.encoder_choice import make_encoder


def pictures(count: int) -> Iterator[Tensor]:
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rows = np.sin(np.arange(288) / 9)[:, None] * 60 + 120 + rng.normal(0, 12, (288, 288))
        yield torch.from_numpy(rows.clip(0, 255).astype(np.uint8))[None]


def quick_encoder() -> PatchEncoder:
    torch.manual_seed(0)
    filters = nn.Conv2d(3, 472, 16, stride=16)
    return PatchEncoder(_One(filters), "quick", image_size=288, n_stages=1)


class _One(nn.Module):
    def __init__(self, filters: nn.Module) -> None:
        super().__init__()
        self.filters = filters

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.filters(images)]


def measure(count: int, quick: bool) -> dict[str, Any]:
    encoder = quick_encoder() if quick else make_encoder()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    reference = NormalReference.build(pictures(count), encoder=encoder)
    built = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        reference.save(Path(folder) / "a.reference")
        size = (Path(folder) / "a.reference").stat().st_size
    saved = time.process_time() - started - built
    image = next(pictures(1))
    started = time.process_time()
    reference.score(image.flip(2))
    return {
        "images": count,
        "build_s": round(built, 2),
        "compare_normals_s": round(saved, 2),
        "score_one_s": round(time.process_time() - started, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "before_mib": before // 1024,
        "file_mib": round(size / 2**20, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=lambda text: [int(part) for part in text.split(",")], default=[250, 500, 1000])
    parser.add_argument("--quick", action="store_true", help="without the real encoder")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this new file")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(options.images[0], options.quick)))
        return 0
    rows = []
    for count in options.images:
        line = [sys.executable, __file__, "--one", "--images", str(count), *(["--quick"] if options.quick else [])]
        rows.append(
            json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )
        print(rows[-1], flush=True)
    if options.json:
        write_record(options.json, {"quick": options.quick, "rows": rows, "machine": machine(torch.device("cpu"))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
