# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.completion import SHELLS
from monai_anomalyclip.cli.program import program_parser


@pytest.mark.parametrize("shell", SHELLS)
def test_script_knows_commands_and_options(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("predict", "copy-bundle", "preset", "slice-batch-size", "weights"))
    (tmp_path / "script").write_text(script)
    if program := shutil.which(shell):
        subprocess.run([program, "-n", tmp_path / "script"], check=True)  # its syntax


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["pre"], {"predict"}),
        (["weights", "ver"], {"verify"}),
        (["predict", "--slice-b"], {"--slice-batch-size"}),
        (["convert-prompts", "epo"], {"epoch_15.pth"}),
        (["completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes(words: list[str], wanted: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "epoch_15.pth").touch()
    line = ["monai-anomalyclip", *words]
    ask = (
        f"source ./script; COMP_WORDS=({' '.join(line)}); COMP_CWORD={len(words)}; COMP_TYPE=9; "
        "$(complete -p monai-anomalyclip | sed 's/.*-F \\([^ ]*\\).*/\\1/') monai-anomalyclip; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {word.strip() for word in done.stdout.split()} == wanted


def test_every_path_completes() -> None:
    """The parser that help is made of is left as it is: completion marks its own."""
    parser = program_parser("convert-prompts")
    assert not any(hasattr(action, "complete") for action in parser._actions)
