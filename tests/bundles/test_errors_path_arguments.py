# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import fire.core
import pytest

from monai_anomalyclip.bundles.errors import check_path_arguments

REPOSITORY = Path(__file__).parents[2]
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
