# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of one work on the real engines: Slurm, Snakemake, Nextflow and torchrun start the program itself."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.scale.templates import scheduler_file

pytestmark = pytest.mark.nightly

PARTS = 3
SYSTEM = "/usr/sbin:/usr/bin:/sbin"
SLURM = """ClusterName=test
SlurmctldHost={host}(10.93.7.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=10.93.7.1 CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 RealMemory=64000 State=UNKNOWN
SlurmdParameters=config_overrides
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# With `lo` alone Slurm finds no address.
NETWORK = """
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.93.7.1/24 dev v0
ip link set v0 up
ip link set v1 up
"""
RUN_SLURM = """
slurmctld -D > controller.log 2>&1 & one=$!
slurmd -D > node.log 2>&1 & two=$!
trap 'kill $one $two; wait' EXIT
for second in $(seq 60); do sinfo 2> /dev/null | grep -q idle && break; sleep 0.5; done
timeout 240 sbatch --wait --chdir "$PWD" --output "$PWD/task-%a.log" parts.slurm
"""


@dataclass
class Work:
    """Six pictures, one of which is none, and where a scheduler is to run."""

    folder: Path
    bundle: Path
    environment: dict[str, str] = field(default_factory=dict)

    def template(self, kind: str) -> Path:
        path = self.folder / f"parts.{kind}"
        places = {"work_list": f"{self.folder}/work.jsonl", "results": f"{self.folder}/out", "bundle": str(self.bundle)}
        path.write_text(scheduler_file(kind, **places, parts=PARTS))
        return path

    def run(self, *words: str | Path, **environment: str) -> None:
        said = self.folder / "said.log"
        with said.open("wb") as stream:
            done = subprocess.run(
                words, cwd=self.folder, env={**self.environment, **environment},
                stdout=stream, stderr=stream, timeout=300,
            )  # fmt: skip
        logs = "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))
        assert done.returncode == 0, logs

    def check(self, merged: bool) -> None:
        """All is there, and the same as of one process."""
        out, whole = self.folder / "out", self.folder / "whole"
        if not merged:
            assert main(["merge", str(out), "--list", str(self.folder / "work.jsonl")]) == 3
        assert main(["predict", str(self.folder / "in"), "-o", str(whole), "--bundle", str(self.bundle)]) == 3
        for name in ("scores.csv", *(path.name for path in whole.glob("*.png"))):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
        with (out / "missing.csv").open(newline="") as stream:
            assert [row["status"] for row in csv.DictReader(stream)] == ["failed"]


@pytest.fixture
def work(tmp_path: Path, untuned_bundle: Callable[..., Path]) -> Work:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "damaged.png").write_text("no picture")
    assert main(["list", str(tmp_path / "in"), "-o", str(tmp_path / "work.jsonl")]) == 0
    program = tmp_path / "bin" / "monai-anomalyclip"  # this one, whatever is installed
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m monai_anomalyclip "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"], SYSTEM)),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return Work(tmp_path, untuned_bundle(tmp_path / "bundle"), environment)


def missing(*names: str) -> bool:
    return any(shutil.which(name, path=os.environ["PATH"] + os.pathsep + SYSTEM) is None for name in names)


def test_torchrun(work: Work) -> None:
    """The part with the damaged file does not end the other."""
    words = ["--list", "work.jsonl", "-o", "out", "--bundle", str(work.bundle), "--part", "auto"]
    work.run("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "monai_anomalyclip", "predict", *words)
    work.check(merged=False)


@pytest.mark.skipif(
    missing("slurmctld", "slurmd", "sbatch", "ip"),
    reason="Slurm or iproute2 is missing: `apt-get install slurmctld slurmd slurm-client iproute2`",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="a network with an address needs root")
def test_slurm(work: Work) -> None:
    """The status of `sbatch --wait` is that of the worst task."""
    for name in ("state", "spool"):
        (work.folder / name).mkdir()
    host = os.uname().nodename.partition(".")[0]
    configuration = work.folder / "slurm.conf"
    configuration.write_text(SLURM.format(host=host, folder=work.folder))
    work.template("slurm")
    work.run("unshare", "--net", "bash", "-c", NETWORK + RUN_SLURM, SLURM_CONF=str(configuration))
    work.check(merged=False)


@pytest.mark.skipif(missing("snakemake"), reason="Snakemake is missing: `pip install snakemake`, apart from this")
def test_snakemake(work: Work) -> None:
    words = ["snakemake", "--snakefile", work.template("snakemake"), "--jobs", "2"]
    work.run(*words)
    work.check(merged=True)
    (work.folder / "out" / "missing.csv").unlink()
    work.run(*words)  # nothing is left but the tables
    work.check(merged=True)


@pytest.mark.skipif(missing("nextflow"), reason="Nextflow is missing: see its own installation; it needs Java")
def test_nextflow(work: Work) -> None:
    # Of a small machine; the template asks for 4 cores and 16 GB.
    (work.folder / "nextflow.config").write_text("process { withName: 'part' { cpus = 1; memory = '1 GB' } }\n")
    home = str(work.folder / "home")
    work.run("nextflow", "run", work.template("nextflow"), NXF_HOME=home, NXF_OFFLINE="true")
    work.check(merged=True)


@pytest.mark.skipif(missing("reftrace"), reason="RefTrace, which parses Nextflow, is missing: `pip install reftrace`")
def test_nextflow_is_parsed(work: Work) -> None:
    path = work.template("nextflow")
    script = (
        "import sys, reftrace\n"
        "module = reftrace.Module.from_file(sys.argv[1])\n"
        "print(*(one.name for one in module.processes), len(module.workflows))\n"
    )
    python = Path(str(shutil.which("reftrace"))).with_name("python")
    done = subprocess.run([python, "-c", script, path], capture_output=True, text=True)
    assert done.stdout == "part merge 1\n", done.stderr
    path.write_text(path.read_text().replace("process merge {", "process merge ("))
    assert subprocess.run([python, "-c", script, path], capture_output=True).returncode == 1
