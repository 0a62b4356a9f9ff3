# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/performance.md: benchmarks at toy size, `predict` on a picture."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo.network import demo_network

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "performance.md"
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line
]
# Given last, these win.
TOY = {
    "inference": ["--image-size", "84", "--dpam-start", "2", "--batch-sizes", "1", "--repeats", "1"],
    "tuning": ["--image-size", "84", "--images", "3", "--epochs", "2", "--repeats", "1"],
    "scaling": [
        "--sizes",
        "56",
        "84",
        "--batches",
        "1",
        "2",
        "--slices",
        "1",
        "2",
        "--tuned",
        "8",
        "16",
        "--repeats",
        "1",
    ],
    "export": ["--image-size", "84", "--dpam-start", "2", "--repeats", "1", "--ways", "float32", "onnx"],
    "cpu_ceiling": ["--image-size", "84", "--dpam-start", "2", "--repeats", "1"],
    "forward": ["--image-size", "84", "--dpam-start", "2", "--repeats", "1", "--dtype", "float32"],
}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python benchmarks/")])
def test_benchmark(command: str, script: Callable[[str], ModuleType], thin_model: Path, tmp_path: Path) -> None:
    _, path, *arguments = shlex.split(command)
    name = Path(path).stem
    placed = [str(tmp_path / Path(part).name) if part.endswith((".png", ".json")) else part for part in arguments]
    assert script(name).main([*placed, *TOY[name], "--model", str(thin_model), "--device", "cpu"]) == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("monai-anomalyclip")])
def test_predict(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frames").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frames" / "a.png")
    demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4).save_prompts(tmp_path / "p.pt")
    (tmp_path / "bundles").symlink_to(REPOSITORY / "bundles")
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command)[1:], "--prompts", "p.pt"]) == 0
    assert list((tmp_path / "results").glob("*_heat.png"))


def test_every_command_is_run() -> None:
    assert len(COMMANDS) >= 6
    assert all(command.startswith(("python benchmarks/", "monai-anomalyclip predict")) for command in COMMANDS)


def test_figures_and_plot_are_there() -> None:
    text = DOCUMENT.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCUMENT.parent / link).exists(), link
