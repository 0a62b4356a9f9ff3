# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The template on a real Slurm: its own controller and node, in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from monai_anomalyclip.scale.templates import scheduler_file

CONFIGURATION = """ClusterName=test
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
NEEDED = ("slurmctld", "slurmd", "sbatch", "ip")
# With `lo` alone Slurm finds no address.
NETWORK = """
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.93.7.1/24 dev v0
ip link set v0 up
ip link set v1 up
"""
RUN = """
slurmctld -D > controller.log 2>&1 & one=$!
slurmd -D > node.log 2>&1 & two=$!
trap 'kill $one $two; wait' EXIT
for second in $(seq 60); do sinfo 2> /dev/null | grep -q idle && break; sleep 0.5; done
timeout 120 sbatch --wait --chdir "$PWD" --output "$PWD/task-%a.log" parts.sbatch
"""


@pytest.mark.nightly
@pytest.mark.skipif(
    any(
        shutil.which(name, path="/usr/sbin:/usr/bin:/sbin") is None for name in ("slurmctld", "slurmd", "sbatch", "ip")
    ),
    reason="Slurm or iproute2 is missing: `apt-get install slurmctld slurmd slurm-client iproute2`",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="a network with an address needs root")
def test_an_array_of_four(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "spool").mkdir()
    host = os.uname().nodename.partition(".")[0]
    (tmp_path / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=tmp_path))
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "monai-anomalyclip"
    # K and N as the program itself tells them from the environment; the third part has inputs that failed for good.
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "from monai_anomalyclip.data.parts import parse_part\n"
        "part = parse_part(sys.argv[sys.argv.index('--part') + 1])\n"
        f"print(part, file=open('{tmp_path}/done-' + str(part.number), 'w'))\n"
        "sys.exit(3 if part.number == 3 else 0)\n"
    )
    stand_in.chmod(0o755)
    script = scheduler_file("slurm", work_list="work.jsonl", results="out", parts=4)
    (tmp_path / "parts.sbatch").write_text(script)
    environment = {
        **os.environ,
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with (tmp_path / "said").open("wb") as said:
        done = subprocess.run(
            ["unshare", "--net", "bash", "-c", NETWORK + RUN],
            cwd=tmp_path, env=environment, stdout=said, stderr=said, timeout=240,
        )  # fmt: skip
    logs = "".join(path.read_text() for path in (tmp_path / "said", tmp_path / "controller.log", tmp_path / "node.log"))
    assert done.returncode == 0, logs[-4000:]  # the status of the worst task
    assert [(tmp_path / f"done-{number}").read_text() for number in range(1, 5)] == ["1/4\n", "2/4\n", "3/4\n", "4/4\n"]
