# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Run by test_transfer and test_service within a network namespace of its own: a real Orthanc and our side of it.

    unshare --net --map-root-user python orthanc_loop.py SCENE FOLDER BUNDLE

Prints a JSON object of what was seen.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import logging
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

HTTP, DICOM, OURS = 8042, 4242, 11112
URL = f"http://127.0.0.1:{HTTP}"
LUA = "function OnStableStudy(id, tags, metadata) RestApiPost('/modalities/AI/store', id) end\n"


class Orthanc:
    """An archive that forwards what it gets, where `forward` says so."""

    def __init__(self, folder: Path, forward: bool = False, password: bool = False) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "forward.lua").write_text(LUA)
        configuration: dict[str, Any] = {
            "StorageDirectory": "db", "IndexDirectory": "db", "HttpPort": HTTP, "DicomPort": DICOM,
            "DicomAet": "ORTHANC",
            "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"], "RemoteAccessAllowed": True,
            "AuthenticationEnabled": password, "RegisteredUsers": {"a": "b"}, "StableAge": 1,
            "DicomModalities": {"AI": ["ANOMALY", "127.0.0.1", OURS]}, "DicomCheckCalledAet": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "LuaScripts": ["forward.lua"] if forward else [],
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        self.headers = {"Authorization": "Basic " + base64.b64encode(b"a:b").decode()} if password else {}
        self.start()

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(["/usr/sbin/Orthanc", "orthanc.json"], cwd=self.folder, stdout=log, stderr=log)
        for _ in range(300):
            with contextlib.suppress(OSError):
                self.get("/system")
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, path: str, body: bytes | None = None, method: str = "GET") -> Any:
        request = urllib.request.Request(URL + path, data=body, headers=self.headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def get(self, path: str) -> Any:
        return self.ask(path)

    def put(self, files: list[Path]) -> None:
        for file in files:
            self.ask("/instances", file.read_bytes(), "POST")

    def modalities(self) -> Counter[str]:
        return Counter(
            self.get(f"/series/{series}")["MainDicomTags"].get("Modality", "") for series in self.get("/series")
        )

    def reports(self) -> list[dict[str, Any]]:
        """Attributes of the structured reports."""
        found = [self.get(f"/series/{series}") for series in self.get("/series")]
        reports = [
            one for series in found if series["MainDicomTags"]["Modality"] == "SR" for one in series["Instances"]
        ]
        return [self.get(f"/instances/{one}/tags?simplify") for one in reports]

    def instances(self) -> int:
        return len(self.get("/instances"))


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def loud() -> io.StringIO:
    """All logs, at every level."""
    said = io.StringIO()
    logging.basicConfig(level=logging.DEBUG, stream=said, force=True)
    return said


def web(folder: Path, bundle: Path) -> dict[str, Any]:
    """The whole loop by DICOMweb: once, again, with a slice more, transcoded, and with an archive that is gone."""
    from monai_anomalyclip.archive.dicomweb import DicomWebArchive
    from monai_anomalyclip.archive.left_out import LeftOut
    from monai_anomalyclip.archive.results import ARCHIVE_IDS
    from monai_anomalyclip.archive.transfer import transfer
    from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun

    said = loud()
    orthanc = Orthanc(folder / "orthanc")
    files = images(folder / "ct")
    orthanc.put(files[:-1])
    orthanc.put(images(folder / "loc"))
    run = WarmRun(RunOptions(bundle, ids={**ARCHIVE_IDS, "device": "cpu", "keep_names": False}))
    archive = DicomWebArchive(f"{URL}/dicom-web")
    left = LeftOut(folder / "left_out.jsonl")

    def once() -> list[Any]:
        done = transfer(archive, archive, {"Modality": "CT"}, run, left)
        return [dict(done.counts), orthanc.instances(), done.problems]

    seen: dict[str, Any] = {"first": once(), "second": once(), "modalities": dict(orthanc.modalities())}
    orthanc.put(files[-1:])
    seen["grown"] = once()
    tags = orthanc.reports()
    seen["predecessors"] = sorted(len(one.get("PredecessorDocumentsSequence", [])) for one in tags)
    seen["grown again"] = once()
    # The same images in another form, in an archive that has none of it: the same results.
    before = sorted(one["SOPInstanceUID"] for one in tags)
    for study in orthanc.get("/studies"):
        orthanc.ask(f"/studies/{study}", method="DELETE")
    orthanc.put(images(folder / "rle"))
    seen["transcoded"] = once()
    seen["same uid"] = orthanc.reports()[0]["SOPInstanceUID"] in before
    orthanc.stop()
    try:
        once()
    except OSError as error:
        seen["gone"] = str(error)
    protected = Orthanc(folder / "protected", password=True)
    try:
        once()
    except OSError as error:
        seen["401"] = str(error)
    protected.stop()
    return {**seen, "said": said.getvalue()}


def node(folder: Path, bundle: Path) -> dict[str, Any]:
    """By DIMSE, as a program: forwarding that ends, a kill -9, a pause in the middle, a wrong AE title."""
    from pynetdicom import AE

    orthanc = Orthanc(folder / "orthanc", forward=True)
    log = (folder / "serve.log").open("w")

    def start() -> subprocess.Popen[bytes]:
        words = ["-m", "monai_anomalyclip", "serve", "--aet", "ANOMALY", "--port", str(OURS), "--spool", "spool"]
        words += ["--send-to", f"127.0.0.1:{DICOM}:ORTHANC", "--quiet", "3", "--health-port", "11113", "--verbose"]
        words += ["--bundle", str(bundle), "--device", "cpu"]
        process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=log, stderr=log)
        wait(lambda: health() is not None, 120)
        return process

    def health() -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen("http://127.0.0.1:11113/", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return dict(json.loads(error.read()))
        except OSError:
            return None

    def wait(what: Any, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if what():
                return True
            time.sleep(0.2)
        return False

    serve = start()
    files = images(folder / "ct")
    orthanc.put(files[:2])
    seen: dict[str, Any] = {"received": wait(lambda: (health() or {}).get("received", 0) >= 2, 60)}
    serve.send_signal(signal.SIGKILL)  # what was received is not lost
    serve.wait()
    serve = start()
    seen["first"] = wait(lambda: orthanc.modalities()["SR"] == 1, 60)
    time.sleep(5)  # the archive forwards our results to us: nothing comes of it
    seen["after forwarding"] = [orthanc.instances(), (health() or {}).get("series")]
    orthanc.put(files[2:])  # a study that is completed later
    seen["grown"] = wait(lambda: orthanc.modalities()["SR"] == 2, 60)
    seen["modalities"] = dict(orthanc.modalities())
    wrong = AE(ae_title="X")
    wrong.add_requested_context("1.2.840.10008.1.1")
    seen["wrong AE"] = wrong.associate("127.0.0.1", OURS, ae_title="OTHER").is_rejected
    orthanc.stop()  # an archive that vanishes in the middle
    right = AE(ae_title="X")
    from pydicom import dcmread

    header = dcmread(images(folder / "mr")[0])
    right.add_requested_context(header.SOPClassUID, header.file_meta.TransferSyntaxUID)
    sender = right.associate("127.0.0.1", OURS, ae_title="ANOMALY")
    for path in images(folder / "mr"):
        sender.send_c_store(dcmread(path))
    sender.release()
    seen["vanished"] = wait(lambda: "cannot be reached" in (health() or {}).get("problem", ""), 60)
    orthanc.start()
    seen["back"] = wait(lambda: orthanc.modalities()["SR"] == 3, 90)
    seen["health"] = health()
    serve.send_signal(signal.SIGTERM)
    seen["status"] = serve.wait(30)
    orthanc.stop()
    log.close()
    return {**seen, "said": (folder / "serve.log").read_text()}


if __name__ == "__main__":
    with socket.socket() as any_socket:  # loopback of a new namespace is down
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
    scene = {"web": web, "node": node}[sys.argv[1]]
    print("\n" + json.dumps(scene(Path(sys.argv[2]), Path(sys.argv[3]))))
