# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The README's way to real images as printed, with the tiny CLIP and a server on this machine for the network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import main

REPOSITORY = Path(__file__).parents[2]


def test_weights_bundle_and_predict_run_as_printed(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    tiny_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "weights bundle" in block)
    publish(clip_bytes, prompts_bytes)
    work = tmp_path / "work"
    (work / "STUDIES").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(work / "STUDIES" / "a.png")
    monkeypatch.chdir(work)
    # The real CLIP's sizes are the bundle's own; the tiny one's have to be told.
    overlay = {
        "backbone#model_name": tiny_config["clip"],
        "backbone#image_size": tiny_config["image_size"],
        "network_def#feature_layers": [12],
        "network_def#dpam_start": 5,
        "network_def#deep_prompt_depth": tiny_config["depth"],
    }
    (tmp_path / "tiny.json").write_text(json.dumps(overlay))
    for line in block.splitlines():
        program, *words = shlex.split(line)
        assert program == "monai-anomalyclip"
        words += ["--config", str(tmp_path / "tiny.json"), "--device", "cpu"] if words[0] == "predict" else []
        assert main(words) == 0, line
    results = json.loads((work / "results" / "results.json").read_text())
    assert [record["status"] for record in results["inputs"]] == ["ok"]
