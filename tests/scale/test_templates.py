# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Templates, given to the programs that are to read them; the scripts in them run with a command that only ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import WDL
import yaml

from monai_anomalyclip.scale.templates import KINDS, scheduler_file

PATHS = {"work_list": "/data/work list.jsonl", "results": "/data/results", "bundle": "/data/bundles/anomalyclip"}


def written(kind: str, folder: Path, **changed: str) -> Path:
    path = folder / f"file.{kind}"
    path.write_text(scheduler_file(kind, **{**PATHS, **changed}, parts=4))  # type: ignore[arg-type]
    return path


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which `monai-anomalyclip` and `scontrol` note what they are given; one ends with $WANTED."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, end in (("monai-anomalyclip", "exit $WANTED"), ("scontrol", "exit 0")):
        script = folder / name
        script.write_text(f'#!/bin/bash\nprintf "%s|" {name} "$@" >> "$NOTES"\necho >> "$NOTES"\n{end}\n')
        script.chmod(0o755)
    notes = tmp_path / "notes"
    notes.touch()
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "NOTES": str(notes)}


def test_slurm(tmp_path: Path, stand_in: dict[str, str]) -> None:
    """The part is the task's; failures that may pass are queued again, twice; those for good do not fail the job."""
    script = written("slurm", tmp_path)
    assert "#SBATCH --array=1-4\n" in script.read_text()
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "17"}
    notes = Path(stand_in["NOTES"])
    for wanted, restarts, status, queued in (
        ("0", "", 0, False),
        ("3", "", 0, False),
        ("1", "", 1, True),
        ("1", "1", 1, True),
        ("1", "2", 1, False),
        ("2", "", 2, False),
        ("143", "", 143, False),
    ):
        notes.write_text("")
        restarted = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
        done = subprocess.run(["bash", script], env={**stand_in, **task, **restarted, "WANTED": wanted})
        assert done.returncode == status
        lines = notes.read_text().splitlines()
        assert lines[0] == (
            "monai-anomalyclip|predict|--list|/data/work list.jsonl|-o|/data/results|--bundle|"
            "/data/bundles/anomalyclip|--part|auto/4|"
        )
        assert lines[1:] == (["scontrol|requeue|17_3|"] if queued else [])


def test_kubernetes(tmp_path: Path) -> None:
    job = yaml.safe_load(written("kubernetes", tmp_path).read_text())
    kubernetes_validate.validate(job, "1.31", strict=True)
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", 4)
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"][-2:] == ["--part", "auto/4"]
    assert container["volumeMounts"][0]["mountPath"] == "/data"
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**spec, "completions": "four"}}, "1.31", strict=True)


def test_wdl(tmp_path: Path) -> None:
    path = written("wdl", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "WDL", "check", "--strict", "--no-shellcheck", path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {task.name for task in WDL.load(str(path)).tasks} == {"part", "merge"}


@pytest.mark.parametrize("kind", ["wdl", "nextflow"])
def test_commands(kind: str, tmp_path: Path, stand_in: dict[str, str]) -> None:
    """The shell commands within the templates, as their engine fills them in; 3 does not fail the work."""
    values = {**PATHS, "number": "2", "parts": "4", "length(done)": "4"}
    text = written(kind, tmp_path).read_text()
    if kind == "wdl":
        commands = [
            re.sub(r"~\{(.*?)\}", lambda match: values[match[1]], command)
            for command in re.findall(r"command <<<(.*?)>>>", text, re.DOTALL)
        ]
    else:
        commands = [
            re.sub(r"(?<!\\)\$\{(?:params\.)?(.*?)\}", lambda match: values[match[1]], command).replace("\\$", "$")
            for command in re.findall(r'"""(.*?)"""', text, re.DOTALL)
        ]
    assert len(commands) == 2
    for command in commands:
        for wanted, status in (("0", 0), ("3", 0), ("1", 1)):
            done = subprocess.run(["bash", "-ue", "-c", command], env={**stand_in, "WANTED": wanted}, cwd=tmp_path)
            assert done.returncode == status
    told = Path(stand_in["NOTES"]).read_text().splitlines()
    assert told[0].endswith("|/data/bundles/anomalyclip|--part|2/4|")
    assert told[-1] == "monai-anomalyclip|merge|/data/results|--list|/data/work list.jsonl|"


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("snakemake") is None, reason="Snakemake is not installed")
def test_snakemake_tries_again(tmp_path: Path, stand_in: dict[str, str]) -> None:
    (tmp_path / "work.jsonl").touch()
    path = written("snakemake", tmp_path, work_list=str(tmp_path / "work.jsonl"), results=str(tmp_path / "out"))
    words = ["snakemake", "--snakefile", path, "--jobs", "1", "--quiet", "all"]
    done = subprocess.run(words, env={**stand_in, "WANTED": "1"}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    told = Path(stand_in["NOTES"]).read_text()
    parts = re.findall(r"--part\|(\d/4)", told)
    assert len(parts) == 3
    assert len(set(parts)) == 1
    assert "|merge|" not in told


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"results": "/data/x'; rm -rf /"}, "cannot stand in a template"),
        ({"work_list": "/data/${HOME}"}, "cannot stand in a template"),
        ({"bundle": "a\nb"}, "cannot stand in a template"),
        ({"image": ""}, "cannot stand in a template"),
        ({"parts": 0}, "must be 1 to 10000, got 0"),
        ({"kind": "pbs"}, "There is no template of 'pbs'"),
    ],
)
def test_values_that_would_be_code(changed: dict[str, object], message: str) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=re.escape(message)):
            scheduler_file(**{"kind": kind, **PATHS, **changed})  # type: ignore[arg-type]
