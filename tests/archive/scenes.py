# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Run orthanc_loop.py in a network namespace of its own, and know what no log may hold."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest

from monai_anomalyclip.scale.warm_run import RunOptions

SCRIPT = Path(__file__).with_name("orthanc_loop.py")
# Of processes, too: a scene that fails half-way leaves no archive behind.
NAMESPACE = ["unshare", "--net", "--pid", "--fork", "--kill-child", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def scene(name: str, folder: Path, options: RunOptions) -> dict[str, Any]:
    """What a scene of orthanc_loop.py saw; skips where there is no Orthanc, or no namespace to put it into."""
    if not Path("/usr/sbin/Orthanc").exists() or not Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").exists():
        pytest.skip("Orthanc or its DICOMweb plug-in is missing: `apt-get install orthanc orthanc-dicomweb`")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here, and Orthanc binds all interfaces")
    words = [*NAMESPACE, sys.executable, str(SCRIPT), name, str(folder), str(options.bundle)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def identifiers(folder: Path) -> set[str]:
    """Texts of the images that no log may hold."""
    found = set()
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if text := str(header.get(keyword, "")):
                found.add(text)
    return found
