# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/monai_label.md as printed, but for the ports."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.label_server

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "monai_label.md").read_text()
LIMIT = 300  # seconds

# Ends the script when a server that was started does not answer in time.
_WAIT = """
wait_for() {
    for _ in $(seq 600); do curl -sf "$1" > /dev/null && return 0; sleep 0.2; done
    echo "no answer from $1"; cat server.log; exit 1
}
"""


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(language: str, section: str = "") -> list[str]:
    """Lines of the blocks of a language, of the whole page or of a section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL) if section else [PAGE]
    return [line for block in blocks(language, text) for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """Free ports in the place of those of the page."""
    found = {}
    with contextlib.ExitStack() as open_sockets:
        for port in ("8000", "8001", "8002", "8003", "8042"):
            probe = open_sockets.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found[port] = str(probe.getsockname()[1])
    return found


@pytest.fixture(scope="module")
def workspace(
    label_python: Path, untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder like a clone after `make label-env` and a tuning."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv-label").symlink_to(label_python.parents[1])
    (folder / ".venv").symlink_to(sys.prefix)
    untuned_bundle(folder / "bundles")
    return folder


def run_script(lines: list[str], workspace: Path, ports: dict[str, str]) -> list[str]:
    """Output of each command; servers that it starts in the background end with it."""
    script = ["set -euo pipefail", _WAIT]
    for line in lines:
        with_ports = re.sub(r"\b(8000|8001|8002|8003|8042)\b", lambda match: ports[match[0]], line)
        script.append("echo; echo @@@")
        if with_ports.endswith("&"):
            port = next(ports[port] for port in ports if re.search(rf"--port {port}\b", line) or "Orthanc" in line)
            path = "info/" if "monailabel" in line else "system"
            port = ports["8042"] if path == "system" else port
            script += [f"{with_ports[:-1]} >> server.log 2>&1 &", f"wait_for http://127.0.0.1:{port}/{path}"]
        else:
            script.append(with_ports)
    home = workspace / "home"
    home.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MONAI_LABEL"))}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    environment["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"
    output = workspace / "output.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-c", "\n".join(script)],
            cwd=workspace,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    shown = output.read_text()
    assert status == 0, shown[-3000:]
    return [part.strip() for part in shown.split("@@@")[1:]]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_commands_run_as_printed(workspace: Path, ports: dict[str, str]) -> None:
    lines = commands("bash")
    assert lines[0] == "make label-env"  # the fixture's environment is what it makes
    answers = dict(zip(lines[1:], run_script(lines[1:], workspace, ports), strict=True))
    wanted = re.compile(r"(?!.*p_value).*(latencies|loss_before)", re.DOTALL)
    documented = [json.loads(block) for block in blocks("json") if wanted.match(block)]
    mask, calibrated = (answer for line, answer in answers.items() if "8000/infer/anomaly?" in line)
    (tuning,) = (answer for line, answer in answers.items() if "/train/" in line)
    print(f"\n{mask}\n{tuning}")
    for shown, answer in zip(documented, (mask, tuning), strict=True):
        assert shown.keys() == json.loads(answer).keys()
    assert json.loads(mask)["threshold"] == documented[0]["threshold"] == 0.3
    thresholds = json.loads((workspace / "runs" / "label_app" / "model" / "prompts.thresholds.json").read_text())
    assert json.loads(calibrated)["threshold"] == thresholds["pixel_threshold"]
    assert (json.loads(tuning)["images"], json.loads(tuning)["normal_images"]) == (2, 1)
    heat = nib.loadsave.load(workspace / "runs" / "brain_00_map.nii.gz")
    assert heat.get_data_dtype() == np.float32
    (info,) = (json.loads(answer) for line, answer in answers.items() if "/info/" in line)
    table = set(re.findall(r"^\| `(anomaly\w*)` \|", PAGE, re.MULTILINE))
    assert set(info["models"]) == table
    assert {"highest_score", "most_uncertain", "most_diverse", "first", "random"} == set(info["strategies"])
    (stock,) = (json.loads(answer) for line, answer in answers.items() if "/infer/anomalyclip_demo" in line)
    assert 0 <= stock["anomaly_score"] <= 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_dicomweb_commands_run_as_printed(workspace: Path, ports: dict[str, str]) -> None:
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is missing: `apt-get install orthanc orthanc-dicomweb`")
    (configuration,) = (block for block in blocks("json") if "StorageDirectory" in block)
    text = configuration.replace("8042", ports["8042"])
    assert json.loads(text)["RemoteAccessAllowed"] is False
    (workspace / "orthanc.json").write_text(text)
    lines = [line for line in commands("bash") if line.startswith(("export", "monai-anomalyclip"))]
    if (workspace / "runs" / "label_app").exists():
        lines = [line for line in lines if line.startswith("export")]
    check = "curl -s http://127.0.0.1:8001/datastore/"
    answers = run_script(["mkdir -p runs", *lines, *commands("sh", "DICOMweb"), check], workspace, ports)
    assert json.loads(answers[-1])["total"] == 0
    assert (workspace / "runs" / "dicomweb").is_dir()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_commands_of_normals_run_as_printed(workspace: Path, ports: dict[str, str]) -> None:
    path = next(line for line in commands("bash") if line.startswith("export PATH"))
    lines = commands("sh", "Compare with your own normal images")
    assert "reference build" in " ".join(lines)
    answer = json.loads(run_script(["mkdir -p runs", path, *lines], workspace, ports)[-1])
    (documented,) = (json.loads(block) for block in blocks("json") if "p_value" in block)
    assert answer.keys() == documented.keys()
    assert answer["p_value"] == pytest.approx(documented["p_value"]) == pytest.approx(1 / 33)
    assert answer["doubts"] == documented["doubts"]
    assert answer["anomaly_score"] == pytest.approx(documented["anomaly_score"], abs=0.02)
    assert answer["anomaly_score"] > answer["threshold"] == pytest.approx(documented["threshold"], abs=0.02)
