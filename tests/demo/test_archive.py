# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration's archive, a real Orthanc in a network namespace of its own; and what is done without one."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monai_anomalyclip.demo import archive
from monai_anomalyclip.demo.archive import PLUGIN, main

NAMESPACE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]

# Run in the namespace: loopback, then the command, whose output is what the archive answers to it.
LOOP = """
import fcntl, json, socket, struct, sys
with socket.socket() as any_socket:  # loopback of a new namespace is down
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
from monai_anomalyclip.demo.archive import main
sys.exit(main([sys.argv[1], "--", sys.executable, "-c", sys.argv[2], "{studies}"]))
"""
ASK = """
import base64, json, os, sys, urllib.error, urllib.request
address = sys.argv[1] + "/series?includefield=NumberOfSeriesRelatedInstances"
user, password = (os.environ["MONAI_LABEL_DICOMWEB_" + name] for name in ("USERNAME", "PASSWORD"))
proof = base64.b64encode(f"{user}:{password}".encode()).decode()
try:
    urllib.request.urlopen(address)
except urllib.error.HTTPError as error:
    refused = error.code
with urllib.request.urlopen(urllib.request.Request(address, headers={"Authorization": "Basic " + proof})) as answer:
    series = json.load(answer)
kinds = sorted(one["00080060"]["Value"][0] for one in series)
settings = open(os.environ["SETTINGS"])
print(json.dumps({"kinds": kinds, "refused": refused, "mode": os.fstat(settings.fileno()).st_mode & 0o777}))
sys.exit(7)
"""


def test_series_are_in_the_archive_while_the_command_runs(tmp_path: Path) -> None:
    if shutil.which("Orthanc") is None or not PLUGIN.is_file():
        pytest.skip("Orthanc or its DICOMweb plug-in is missing: `apt-get install orthanc orthanc-dicomweb`")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here, and Orthanc binds all interfaces")
    settings = tmp_path / "orthanc" / "orthanc.json"
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", LOOP, str(tmp_path), ASK],
        env={**os.environ, "SETTINGS": str(settings)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 7, done.stderr[-3000:]  # that of the command
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {"kinds": ["CT"] * 4 + ["MR"] * 3, "refused": 401, "mode": 0o600}
    assert not (tmp_path / "orthanc").exists()
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True).returncode == 1


def test_files_where_there_is_no_orthanc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    script = "import os, sys; print(sys.argv[1], len(os.listdir(sys.argv[1])))"
    assert main([str(tmp_path / "demo"), "--", sys.executable, "-c", script, "{studies}"]) == 0
    said, shown = capfd.readouterr().out.splitlines()
    assert "Orthanc is not installed" in said
    assert shown == f"{tmp_path / 'demo' / 'studies'} 12"


def test_ended_by_ctrl_c_or_by_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gets Ctrl+C as well, and says what there is to say; SIGTERM ends both."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    folder = str(tmp_path / "demo")

    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    def terminated(*_: object, **__: object) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    try:
        for call, status in ((interrupted, 0), (terminated, 143)):
            monkeypatch.setattr(subprocess, "call", call)
            monkeypatch.setattr(sys, "argv", ["archive", folder, "--", "server"])
            with pytest.raises(SystemExit) as left:
                runpy.run_path(archive.__file__, run_name="__main__")
            assert left.value.code == status
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_orthanc_that_does_not_start_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 2000 + "The TCP port is in use")
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
        with pytest.raises(RuntimeError, match=r"^Orthanc does not start: x{978}The TCP port is in use$"):
            archive._wait(lambda: pytest.fail("it was asked"), process, log)
