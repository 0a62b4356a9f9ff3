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
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
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
    from monai_anomalyclip.archive.results import ARCHIVE_IDS
    from monai_anomalyclip.archive.transfer import LeftOut, transfer
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
    archive._client.set_http_retry_params(retry=False)  # which takes six seconds
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


class Node:
    """`monai-anomalyclip serve` as a program, which sends its results to the archive."""

    def __init__(self, folder: Path, bundle: Path, send_to: str) -> None:
        self.folder, self.spool = folder, folder / "spool"
        self._words = ["-m", "monai_anomalyclip", "serve", "--aet", "ANOMALY", "--port", str(OURS), "--spool", "spool"]
        self._words += ["--send-to", send_to, "--quiet", "3", "--health-port", "11113", "--verbose"]
        self._words += ["--bundle", str(bundle), "--device", "cpu"]
        self.start()

    def start(self) -> None:
        with (self.folder / "serve.log").open("a") as log:
            self.process = subprocess.Popen([sys.executable, *self._words], cwd=self.folder, stdout=log, stderr=log)
        wait(lambda: bool(self.health()), 120)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def health(self) -> dict[str, Any]:
        """What its page says; nothing where there is none."""
        try:
            with urllib.request.urlopen("http://127.0.0.1:11113/", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return dict(json.loads(error.read()))
        except OSError:
            return {}

    def said(self) -> str:
        return (self.folder / "serve.log").read_text()

    def images(self) -> int:
        return len(list(self.spool.glob("*/images/[!.]*")))


def wait(what: Callable[[], bool], seconds: float) -> bool:
    """Whether something came true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.2)
    return False


def send(files: list[Path], port: int = OURS) -> int:
    """C-STORE files as a scanner does; returns how many were acknowledged."""
    from pydicom import dcmread
    from pynetdicom import AE

    entity = AE(ae_title="X")
    header = dcmread(files[0], stop_before_pixels=True)
    entity.add_requested_context(header.SOPClassUID, header.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="ANOMALY")
    taken = 0
    for path in files if association.is_established else ():
        with contextlib.suppress(RuntimeError):  # the association is gone
            taken += association.send_c_store(dcmread(path)).get("Status") == 0
    if association.is_established:
        association.release()
    return taken


def cut(after: int, then: Callable[[], object]) -> int:
    """A port that hands on to the node until so many bytes have come; then something happens, and the line is dead."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answers(far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)

    def hand_on() -> None:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", OURS)) as far:
            threading.Thread(target=answers, args=(far, near), daemon=True).start()
            left = after
            while left and (data := near.recv(min(left, 65536))):
                far.sendall(data)
                left -= len(data)
            time.sleep(0.5)  # so that the node has read it
            then()

    threading.Thread(target=hand_on, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def node(folder: Path, bundle: Path) -> dict[str, Any]:
    """By DIMSE: forwarding that ends, a kill -9, a study that is completed later, wrong AE titles, no archive."""
    from pynetdicom import AE

    from monai_anomalyclip.archive.dimse import Peer

    orthanc = Orthanc(folder / "orthanc", forward=True)
    serve = Node(folder, bundle, f"127.0.0.1:{DICOM}:ORTHANC")
    files = images(folder / "ct")
    orthanc.put(files[:2])
    seen: dict[str, Any] = {"received": wait(lambda: serve.health().get("received", 0) >= 2, 60)}
    serve.stop(signal.SIGKILL)  # what was received is not lost
    serve.start()
    seen["first"] = wait(lambda: orthanc.modalities()["SR"] == 1, 60)
    time.sleep(5)  # the archive forwards our results to us: nothing comes of it
    seen["after forwarding"] = [orthanc.instances(), serve.health().get("series")]
    orthanc.put(files[2:])  # a study that is completed later
    seen["grown"] = wait(lambda: orthanc.modalities()["SR"] == 2, 60)
    seen["modalities"] = dict(orthanc.modalities())
    wrong = AE(ae_title="X")
    wrong.add_requested_context("1.2.840.10008.1.1")
    seen["wrong AE"] = wrong.associate("127.0.0.1", OURS, ae_title="OTHER").is_rejected
    try:
        Peer("127.0.0.1", DICOM, "WRONG", "ANOMALY").send(files)
    except OSError as error:
        seen["wrong AE of the archive"] = str(error)
    orthanc.stop()  # an archive that vanishes in the middle
    seen["sent"] = send(images(folder / "mr"))
    seen["vanished"] = wait(lambda: "cannot be reached" in serve.health().get("problem", ""), 60)
    orthanc.start()
    seen["back"] = wait(lambda: orthanc.modalities()["SR"] == 3, 90)
    seen["health"] = serve.health()
    seen["status"] = serve.stop()
    orthanc.stop()
    return {**seen, "said": serve.said()}


def stow(folder: Path, bundle: Path) -> dict[str, Any]:
    """Results by STOW-RS: a study that pauses in the middle, and a kill -9 in the middle of an image."""
    orthanc = Orthanc(folder / "orthanc")
    serve = Node(folder, bundle, f"{URL}/dicom-web")
    files = images(folder / "ct")
    orthanc.put(files)
    seen: dict[str, Any] = {"taken": send(files[:2])}
    # Quiet for long, but the archive has more of it.
    seen["waits"] = not wait(lambda: orthanc.modalities()["SR"] > 0, 8) and serve.health()["waiting"] == 1
    send(files[2:])
    seen["once"] = wait(lambda: orthanc.modalities()["SR"] == 1, 60)
    large = images(folder / "mr")
    half = large[0].stat().st_size + large[1].stat().st_size // 2
    seen["acknowledged"] = send(large, cut(half, lambda: serve.stop(signal.SIGKILL)))
    seen["kept"] = serve.images() - len(files)
    serve.start()
    seen["after the kill"] = wait(lambda: orthanc.modalities()["SR"] == 2, 60)
    seen["again"] = send(large)
    seen["completed"] = wait(lambda: orthanc.modalities()["SR"] == 3, 60)
    seen["modalities"] = dict(orthanc.modalities())
    reports = orthanc.reports()
    seen["predecessors"] = sorted(len(one.get("PredecessorDocumentsSequence", [])) for one in reports)
    seen["health"] = serve.health()
    serve.stop()
    orthanc.stop()
    return {**seen, "said": serve.said()}


def vanish(folder: Path, bundle: Path) -> dict[str, Any]:
    """By DICOMweb: the archive vanishes while a series is fetched, and before its results are stored."""
    from monai_anomalyclip.archive.dicomweb import DicomWebArchive, FoundSeries
    from monai_anomalyclip.archive.results import ARCHIVE_IDS
    from monai_anomalyclip.archive.transfer import LeftOut, transfer
    from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun

    said = loud()
    orthanc = Orthanc(folder / "orthanc")
    orthanc.put(images(folder / "one") + images(folder / "two"))
    run = WarmRun(RunOptions(bundle, ids={**ARCHIVE_IDS, "device": "cpu", "keep_names": False}))
    left = LeftOut(folder / "left_out.jsonl")

    class During(DicomWebArchive):
        def fetch(self, series: FoundSeries, folder: Path) -> int:
            whole = self._client.iter_series

            def first(*words: Any, **options: Any) -> Iterator[Any]:
                for instance in whole(*words, **options):
                    yield instance
                    orthanc.stop()

            self._client.iter_series = first
            return super().fetch(series, folder)

    class Afterwards(DicomWebArchive):
        def fetch(self, series: FoundSeries, folder: Path) -> int:
            count = super().fetch(series, folder)
            orthanc.stop()
            return count

    seen: dict[str, Any] = {}
    for kind in (During, Afterwards, DicomWebArchive):
        archive = kind(f"{URL}/dicom-web")
        if kind is not DicomWebArchive:
            archive._client.set_http_retry_params(retry=False)
        done = transfer(archive, archive, {"Modality": "CT"}, run, left)
        seen[kind.__name__] = [dict(done.counts), done.problems]
        if kind is not DicomWebArchive:
            orthanc.start()
    seen["modalities"] = dict(orthanc.modalities())
    orthanc.stop()
    return {**seen, "said": said.getvalue()}


if __name__ == "__main__":
    with socket.socket() as any_socket:  # loopback of a new namespace is down
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
    scene = {"web": web, "node": node, "stow": stow, "vanish": vanish}[sys.argv[1]]
    print("\n" + json.dumps(scene(Path(sys.argv[2]), Path(sys.argv[3]))))
