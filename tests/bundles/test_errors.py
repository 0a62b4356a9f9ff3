# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fire.core
import pytest

from monai_anomalyclip.bundles.errors import cause_of, check_path_arguments, print_cause_last

REPOSITORY = Path(__file__).parents[2]


def wrapped(cause: BaseException, *messages: str) -> BaseException:
    """The cause as MONAI raises it: inside one RuntimeError per message, the first one innermost."""
    error = cause
    for message in messages:
        try:
            raise RuntimeError(message) from error
        except RuntimeError as outer:
            error = outer
    return error


def printed(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    print_cause_last(type(error), error, error.__traceback__)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_cause_comes_last_and_the_traceback_stays(capsys: pytest.CaptureFixture[str]) -> None:
    error = wrapped(
        FileNotFoundError("There are no prompts."), "Failed to instantiate X", "Failed to evaluate ConfigExpression"
    )
    lines = printed(error, capsys).splitlines()
    assert lines[-2:] == ["", "FileNotFoundError: There are no prompts."]
    assert lines[-3] == "RuntimeError: Failed to evaluate ConfigExpression"
    assert sum("Traceback" in line for line in lines) == 2
    assert sum("direct cause" in line for line in lines) == 2


@pytest.mark.parametrize(
    "error",
    [
        ValueError("an error that MONAI did not wrap"),
        wrapped(ValueError("inner"), "out of memory"),
        RuntimeError("Failed to find anything, and nothing is the cause"),
    ],
)
def test_other_errors_are_printed_as_ever(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    message = printed(error, capsys)
    sys.__excepthook__(type(error), error, error.__traceback__)
    assert message == capsys.readouterr().err


def test_cause_is_the_exception_itself() -> None:
    cause = ValueError("inner")
    assert cause_of(cause) is cause
    assert cause_of(wrapped(cause, "Failed to instantiate X", "Failed to evaluate Y")) is cause
    outer = wrapped(cause, "1 of 2 inputs failed", "Failed to run")
    assert cause_of(outer) is outer.__cause__
    lonely = RuntimeError("Failed to find anything, and nothing is the cause")
    assert cause_of(lonely) is lonely


def test_own_wrapping_below_monais_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    error = wrapped(ValueError("inner"), "the sentence that helps", "Failed to run")
    assert printed(error, capsys).endswith("\n\nRuntimeError: the sentence that helps\n")


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join(map(str, (cwd, REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


SCRIPT = """
import sys
import {module}
raised = RuntimeError("Failed to evaluate ConfigExpression")
raise raised from ValueError("the cause")
"""


@pytest.mark.parametrize("package", ["monai", "other"])
def test_only_the_bundle_command_is_changed(package: str, tmp_path: Path) -> None:
    """A stand-in for ``python -m monai.bundle``: what counts is the name under which Python runs it."""
    bundle = tmp_path / package / "bundle"
    bundle.mkdir(parents=True)
    (tmp_path / package / "__init__.py").touch()
    (bundle / "__init__.py").touch()
    source = REPOSITORY / "monai_anomalyclip" / "bundles/errors.py"
    (tmp_path / "own_errors.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (bundle / "__main__.py").write_text(SCRIPT.format(module="own_errors"), encoding="utf-8")
    done = run("-m", f"{package}.bundle", cwd=tmp_path)
    last = "ValueError: the cause" if package == "monai" else "RuntimeError: Failed to evaluate ConfigExpression"
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1] == last


def test_import_elsewhere_leaves_the_hook_alone(tmp_path: Path) -> None:
    code = "import sys, monai_anomalyclip.bundles.errors; print(sys.excepthook is sys.__excepthook__)"
    done = run("-c", code, cwd=REPOSITORY)
    assert done.stdout.strip() == "True", done.stderr


NAMES = [
    *("12345", "20240101", "1.5", "1.50", "1e5", "1E-3", "1_000", "0x10", "-5", "2j", ".5", "5."),
    *("True", "None", "[1]", "(1,)", "{1}", "{'a': 1}", "1,2", "study#1", "()", "[]"),
]
KEPT = ["007", "2024-01-01", "1.2.840.1", "study 1", "a-b", "日本", "true", "v1.0", "nan", "1e5x", "./1e5", "[a", "a:1"]


def seen_by_fire(*arguments: str) -> dict[str, object]:
    def run(**overrides: object) -> dict[str, object]:
        return overrides

    found: dict[str, object] = fire.core.Fire(run, command=list(arguments), serialize=lambda value: "")
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["dataset_dir", "output_dir"])
def test_what_fire_would_change_is_refused(name: str, argument: str) -> None:
    for line in ([f"--{argument}", name], [f"--{argument.replace('_', '-')}={name}"]):
        assert seen_by_fire(*line) != {argument: name}
        with pytest.raises(ValueError, match=r"would be read as .*: write \./") as caught:
            check_path_arguments(["python", "run", *line])
        assert str(caught.value).endswith(f"write ./{name}")
    assert seen_by_fire(f"--{argument}", f"./{name}") == {argument: f"./{name}"}  # the advice helps
    check_path_arguments(["run", f"--{argument}", f"./{name}"])


@pytest.mark.parametrize("name", KEPT)
def test_what_fire_keeps_is_allowed(name: str) -> None:
    assert seen_by_fire("--output_dir", name) == {"output_dir": name}
    check_path_arguments(["run", "--output_dir", name, "--max_epochs", "3"])


def test_several_paths_and_quotes_are_allowed_where_they_are_meant() -> None:
    check_path_arguments(["run", "--dataset_dir", "['a','b']", "--output_dir='1e5'"])
    with pytest.raises(ValueError, match=r"--output_dir \['a','b'\] would be read as"):
        check_path_arguments(["run", "--output_dir", "['a','b']"])


@pytest.mark.parametrize("config", ["inference", "train"])
def test_the_bundle_command_ends_in_the_sentence(
    config: str, run_command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    bundle = REPOSITORY / "bundles" / "anomalyclip_demo"
    line = f"python -m monai.bundle run --config_file {bundle}/configs/{config}.json --bundle_root {bundle}"
    failed = run_command(f"{line} --dataset_dir 1_000", tmp_path, check=False)
    assert failed.returncode != 0
    assert failed.stderr.strip().splitlines()[-1] == "error: --dataset_dir 1_000 would be read as 1000: write ./1_000"
    assert not list(tmp_path.iterdir())
