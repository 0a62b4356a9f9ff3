# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A small DICOMweb archive in this process, which can be made to fail in ways that a real one seldom does."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pydicom
from pydicom.dataset import Dataset

_LEVELS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_BOUNDARY = b"part"


class WebArchive:
    """What it holds, and how it misbehaves.

    Attributes:
        files: DICOM files by SOP Instance UID.
        status: what it answers to a method and a path instead; 0 for the truth.
        withheld: UIDs of instances that it lists, but does not hand out.
        refusal: Failure Reason of everything that is to be stored; 0 to take it.
        alter: done with every object that it hands out.
        asked: method, path and headers of all requests.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self.files: dict[str, bytes] = {}
        for path in files:
            self.add(path.read_bytes())
        self.status: Callable[[str, str], int] = lambda method, path: 0
        self.withheld: set[str] = set()
        self.refusal = 0
        self.alter: Callable[[Dataset], object] = lambda dataset: None
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def add(self, file: bytes) -> Dataset:
        dataset = pydicom.dcmread(BytesIO(file))
        self.files[str(dataset.SOPInstanceUID)] = file
        return dataset

    def objects(self) -> list[Dataset]:
        return [pydicom.dcmread(BytesIO(file)) for file in self.files.values()]

    def modalities(self) -> list[str]:
        return [str(one.Modality) for one in self.objects()]

    def fetched(self) -> list[str]:
        """Paths of the series that were fetched."""
        return [path for method, path, _ in self.asked if method == "GET" and path.split("/")[-2] == "series"]

    def search(self, level: str, wanted: dict[str, str]) -> list[dict[str, Any]]:
        """One header of each study, series or instance: the attributes that tell where it belongs."""
        found: dict[str, Dataset] = {}
        for one in self.objects():
            if all(str(one.get(key, "")) == value for key, value in wanted.items()):
                found.setdefault(str(one[level].value), one)
        shown = [*_LEVELS, "Modality"]
        return [{f"{one[key].tag:08X}": one[key].to_json_dict(None, 0) for key in shown} for one in found.values()]

    def answer(self, words: list[str], query: dict[str, str]) -> tuple[str, bytes]:
        """Media type and body for a path like ``studies/UID/series/UID/instances``."""
        wanted = dict(zip(_LEVELS, words[1::2], strict=False))
        if words[-1] in ("studies", "series", "instances"):
            level = dict(zip(("studies", "series", "instances"), _LEVELS, strict=True))[words[-1]]
            filters = {key: value for key, value in query.items() if key not in ("limit", "offset", "includefield")}
            found = self.search(level, {**wanted, **filters})
            return "application/dicom+json", json.dumps(found[int(query.get("offset", 0)) :]).encode()
        objects = [
            one
            for one in self.objects()
            if all(str(one.get(key)) == value for key, value in wanted.items() if value != "metadata")
            and str(one.SOPInstanceUID) not in self.withheld
        ]
        if words[-1] == "metadata":
            for one in objects:
                one.pop("PixelData", None)
            return "application/dicom+json", json.dumps([one.to_json_dict() for one in objects]).encode()
        parts = b""
        for one in objects:
            self.alter(one)
            buffer = BytesIO()
            one.save_as(buffer)
            parts += b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (_BOUNDARY, buffer.getvalue())
        kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY.decode()}'
        return kind, parts + b"--%b--" % _BOUNDARY

    def store(self, body: bytes) -> bytes:
        """What was sent, kept or refused; the report on it."""
        file = body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        report = Dataset()
        if self.refusal:
            refused = Dataset()
            refused.FailureReason = self.refusal
            report.FailedSOPSequence = [refused]
        else:
            self.add(file)
        return report.to_json().encode()


@contextmanager
def served(archive: WebArchive, certificate: tuple[Path, Path, Path] | None = None) -> Iterator[str]:
    """The address of an archive, while it can be reached; with an authority, a certificate and its key by https alone,
    and only for those with a certificate of this authority.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(lambda words, query: archive.answer(words, query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(lambda words, query: ("application/dicom+json", archive.store(body)))

        def _answer(self, make: Callable[[list[str], dict[str, str]], tuple[str, bytes]]) -> None:
            parts = urlsplit(self.path)
            archive.asked.append((self.command, parts.path, dict(self.headers)))
            if status := archive.status(self.command, parts.path):
                self.send_error(status, "CANARY^NAME")
                return
            kind, body = make(parts.path.strip("/").split("/")[1:], dict(parse_qsl(parts.query)))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        ca, own, key = certificate
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
        context.load_cert_chain(own, key)
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
