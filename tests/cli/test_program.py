# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from http.client import IncompleteRead
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS
from monai_anomalyclip.cli.program import _COMMANDS, SHELLS, program_parser

COMMANDS = tuple(_COMMANDS)


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_shows_commands_examples_exit_statuses_and_the_research_notice(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys)
    assert " ".join(RESEARCH_USE_ONLY.split()) in shown
    assert "convert-prompts epoch_15.pth" in shown
    assert " ".join(EXIT_STATUS.split()) in shown
    assert all(f" {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, command)
    assert f"usage: monai-anomalyclip {command} " in shown
    assert RESEARCH_USE_ONLY in shown


def test_module_runs_and_help_does_not_load_torch() -> None:
    heavy = {"torch", "monai", "pydicom", "numpy", "open_clip", "matplotlib", "onnx", "shtab"}
    script = (
        "import contextlib, sys\n"
        "from monai_anomalyclip.cli import main\n"
        "from monai_anomalyclip.cli.program import _COMMANDS\n"
        "for command in ([], *([name] for name in _COMMANDS)):\n"
        "    with contextlib.suppress(SystemExit): main([*command, '--help'])\n"
        f"print('loaded:', sorted({heavy} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("loaded: []\n")
    version = subprocess.run(
        [sys.executable, "-m", "monai_anomalyclip", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout == f"monai-anomalyclip {__version__}\n"


def test_only_the_commands_own_module_is_imported() -> None:
    script = (
        "import contextlib, sys\n"
        "from monai_anomalyclip.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['inspect', '--help'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('monai_anomalyclip.cli.')))\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    modules = ("inspect", "options", "plain_messages", "program")
    assert shown.endswith(f"{[f'monai_anomalyclip.cli.{name}' for name in modules]}\n")


QUICK = {
    "inspect": "inspect .",
    "datalist": "datalist folder own -o datalist.json",
    "weights": "weights show",
    "completion": "completion bash",
    "doctor": "doctor",
}


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_leave_torch_and_monai_alone(command: str, tmp_path: Path, phantoms: ModuleType) -> None:
    """Really run, on inputs of every kind; `doctor` alone loads torch and torchvision, to see whether they fit."""
    phantoms.make_series(tmp_path / "series", count=3, size=(32, 40))
    phantoms.make_cine(tmp_path / "cine", count=3, size=(32, 40))
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / "volume.nii.gz")
    for name in ("own/good/a.png", "own/bad/b.png", "c.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / name)
    allowed = {"torch", "torchvision"} if command == "doctor" else set()
    heavy = {"torch", "torchvision", "monai", "ignite", "open_clip", "matplotlib", "sklearn", "SimpleITK"} - allowed
    script = (
        "import sys\n"
        "from monai_anomalyclip.cli import main\n"
        f"status = main({QUICK[command].split()})\n"
        f"print('loaded:', status, sorted({heavy} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "MONAI_ANOMALYCLIP_WEIGHTS": str(tmp_path / "weights")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    status = 1 if command == "doctor" else 0  # there are no weights
    assert done.stdout.endswith(f"loaded: {status} []\n"), done.stdout[-500:] + done.stderr[-2000:]


@pytest.mark.parametrize("arguments", [[], ["absent"], ["inspect"], ["inspect", "in", "--absent"], ["datalist", "x"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: monai-anomalyclip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (None, 0, ""),
        (ValueError("odd value"), 1, "error: odd value\n"),
        (FileNotFoundError("no such thing"), 1, "error: no such thing\n"),
        (RuntimeError("broken"), 1, "error: broken\n"),
        (ImportError("X is needed: pip install x"), 1, "error: X is needed: pip install x\n"),
        (
            ModuleNotFoundError("No module named 'pydicom'"),
            1,
            "error: No module named 'pydicom': `monai-anomalyclip doctor` shows what is missing\n",
        ),
        (IncompleteRead(b"12345"), 1, "error: IncompleteRead(5 bytes read)\n"),
        (KeyboardInterrupt(), 130, "Interrupted: what is finished is kept, and the same command does the rest.\n"),
    ],
)
def test_statuses(
    error: BaseException | None,
    status: int,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def convert(*_: object, **__: object) -> argparse.Namespace:
        if error is not None:
            raise error
        return argparse.Namespace(context_normal=Shape(), context_abnormal=[1], deep_prompts=[])

    class Shape:
        shape = (1, 12, 8)

    monkeypatch.setattr("monai_anomalyclip.networks.convert_prompts", convert)
    assert main(["convert-prompts", "a.pth", "b.pt"]) == status
    assert capsys.readouterr().err == shown


def test_an_interrupted_run_with_force_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_anomalyclip.cli.predict._run", interrupted)
    for options, command in (([], "the same command"), (["--force"], "the same command without --force")):
        assert main(["predict", "in", "-o", "out", *options]) == 130
        said = capsys.readouterr().err
        assert said == f"Interrupted: what is finished is kept, and {command} does the rest.\n"


def test_cause_of_a_wrapped_error_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def convert(*_: object, **__: object) -> None:
        try:
            raise ValueError("the sentence that helps")
        except ValueError as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error

    monkeypatch.setattr("monai_anomalyclip.networks.convert_prompts", convert)
    assert main(["convert-prompts", "a.pth", "b.pt"]) == 1
    assert capsys.readouterr().err == "error: the sentence that helps\n"


def test_a_bug_is_not_taken_for_a_failed_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("monai_anomalyclip.networks.convert_prompts", convert)
    with pytest.raises(AssertionError, match="a bug"):
        main(["convert-prompts", "a.pth", "b.pt"])


def test_arguments_are_those_of_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["monai-anomalyclip", "inspect", str(tmp_path / "absent")])
    assert main() == 1
    assert "does not exist" in capsys.readouterr().err


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


def ended(program: str, output: Any) -> subprocess.CompletedProcess[str]:
    source = f"import atexit, threading, time\nfrom monai_anomalyclip.cli import program\n{program}\nprogram.run()\n"
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", source]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=buffered)


def test_the_end_waits_for_what_is_to_be_done_and_takes_nothing_apart() -> None:
    result = ended(
        """
class Large:
    def __del__(self): print("taken apart", flush=True)
large = Large()
atexit.register(print, "left", end="")
threading.Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
program.main = lambda: 3
""",
        subprocess.PIPE,
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "waited for\nleft", "")


def test_output_that_cannot_be_written_is_told_at_the_end() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    with open("/dev/full", "w") as full:
        result = ended("program.main = lambda: print('much') or 0", full)
    assert result.returncode == 120
    assert "No space left on device" in result.stderr
