# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Phantoms in a real Orthanc while a command runs: ``python -m monai_anomalyclip.demo.archive FOLDER -- COMMAND...``.

``{studies}`` in the command becomes the DICOMweb address of the archive, or the folder of files where Orthanc or its
DICOMweb plug-in is not installed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from monai_anomalyclip.demo.studies import write_demo_series, write_demo_studies

__all__ = ["PLUGIN", "main", "phantom_archive"]

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Orthanc's DICOMweb, where Debian's package puts it."""

_USER = "demo"
_START_SECONDS = 60


@contextlib.contextmanager
def phantom_archive(folder: Path) -> Iterator[tuple[str, str, str]]:
    """An Orthanc with phantom series, which ends with the context.

    Orthanc 1.10 listens on all of the machine's addresses. Requests from elsewhere are refused, and those from this
    machine need the password, which is drawn anew each time.

    Args:
        folder: of Orthanc's database, which is removed before and after.

    Yields:
        the DICOMweb address, the user and the password.

    Raises:
        RuntimeError: Orthanc does not start.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_urlsafe(24)
    configuration = {
        "StorageDirectory": "db",
        "IndexDirectory": "db",
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {_USER: password},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    settings = folder / "orthanc.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(configuration))
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        process = subprocess.Popen(["Orthanc", settings.name], cwd=folder, stdout=output, stderr=output)
    try:
        address = f"http://127.0.0.1:{port}"
        ask = _asker(password)
        _wait(lambda: ask(f"{address}/system", None), process, log)
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            for series in write_demo_series(Path(unpacked)):
                for file in sorted(series.iterdir()):
                    ask(f"{address}/instances", file.read_bytes())
        yield f"{address}/dicom-web", _USER, password
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the command's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of what the demonstration writes")
    parser.add_argument("command", nargs="+", help="in which {studies} stands for the archive")
    given = parser.parse_args(arguments)
    folder = given.folder.absolute()
    environment = {
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "dicomweb"),
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "5",
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": '{"Modality": "CT,MR"}',
    }
    with contextlib.ExitStack() as running:
        if shutil.which("Orthanc") and PLUGIN.is_file():
            studies, user, password = running.enter_context(phantom_archive(folder / "orthanc"))
            environment |= {"MONAI_LABEL_DICOMWEB_USERNAME": user, "MONAI_LABEL_DICOMWEB_PASSWORD": password}
            print(f"Orthanc holds synthetic CT and MR series: {studies}", flush=True)
        else:
            studies = str(folder / "studies")
            write_demo_studies(folder / "studies")
            print(
                "Orthanc is not installed (apt-get install orthanc orthanc-dicomweb): the server has a folder of "
                "synthetic files, which 3D Slicer shows and OHIF does not.",
                flush=True,
            )
        command = [studies if word == "{studies}" else word for word in given.command]
        with contextlib.suppress(KeyboardInterrupt):
            return subprocess.call(command, env={**os.environ, **environment})
    return 0


def _asker(password: str) -> Callable[[str, bytes | None], None]:
    """What sends a request with the password, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    proof = base64.b64encode(f"{_USER}:{password}".encode()).decode()

    def ask(address: str, body: bytes | None) -> None:
        request = urllib.request.Request(address, data=body, headers={"Authorization": f"Basic {proof}"})
        with opener.open(request, timeout=60) as answer:
            answer.read()

    return ask


def _wait(ask: Callable[[], None], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError):
            return ask()
        time.sleep(0.1)
    raise RuntimeError(f"Orthanc does not start: {log.read_text(errors='replace')[-1000:]}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that Orthanc ends as well
    sys.exit(main())
