# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_anomalyclip.cli import main
from monai_anomalyclip.networks import read_prompts


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_every_number_is_kept(suffix: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = data_dir / "tiny" / "prompt_learner.pth", tmp_path / f"model{suffix}"
    assert main(["convert-prompts", str(source), str(target)]) == 0
    state = torch.load(source, weights_only=True)["prompt_learner"]
    converted = read_prompts(target)
    assert torch.equal(converted.context_normal, state["ctx_pos"][0])
    assert torch.equal(converted.context_abnormal, state["ctx_neg"][0])
    assert all(torch.equal(deep, state[f"compound_prompts_text.{i}"]) for i, deep in enumerate(converted.deep_prompts))
    count, length, width = state["ctx_pos"][0].shape
    assert f"{count} + {count} prompts of {length} tokens, width {width}" in capsys.readouterr().out


def test_existing_output_is_kept_unless_told(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.pt"
    target.write_text("precious")
    command = ["convert-prompts", str(data_dir / "tiny" / "prompt_learner.pth"), str(target)]
    assert main(command) == 1
    assert "exists" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    assert read_prompts(target).deep_prompts


def test_missing_input_is_one_sentence_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert-prompts", str(tmp_path / "absent.pth"), str(tmp_path / "x.pt")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
