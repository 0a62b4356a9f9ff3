# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server on loopback, and a real Orthanc with DICOMweb, for tests that ask for them.

The server runs in an environment of its own (``make label-env``): ``.venv-label``, or the Python that the environment
variable MONAI_ANOMALYCLIP_LABEL_PYTHON names. Where it or Orthanc is missing, these tests are skipped.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
VARIABLE = "MONAI_ANOMALYCLIP_LABEL_PYTHON"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 600


class RequestFailedError(AssertionError):
    """The server answered with an error."""


@dataclass
class Server:
    """A process that answers HTTP.

    Args:
        url: where, without a slash at the end.
        process: leader of its own process group.
        log: file of its output.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def request(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> tuple[bytes, Mapping[str, str]]:
        """The answer's body and headers."""
        request = urllib.request.Request(self.url + path, data=body, headers=dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise RequestFailedError(f"{method} {path}: {error.code} {text}\n{self.tail()}") from error

    def get(self, path: str) -> Any:
        """JSON from a path."""
        return json.loads(self.request(path)[0])

    def post_json(self, path: str, content: Any) -> Any:
        """Send JSON, get JSON."""
        return json.loads(
            self.request(path, "POST", json.dumps(content).encode(), {"Content-Type": "application/json"})[0]
        )

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End it and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)


@dataclass
class LabelServer(Server):
    """A MONAI Label server; its clients' requests as methods."""

    studies: str

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers (names in lower case) that answer a request, whose address is sent as it stands.

        ``{port}`` in a header is the server's.
        """
        port = self.url.rpartition(":")[2]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=300)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": "127.0.0.1:{port}", **(headers or {})}.items():
            connection.putheader(name, value.replace("{port}", port))
        if body is not None and "Transfer-Encoding" not in (headers or {}):
            connection.putheader("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # a request may be refused before all of it is sent
            connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, {name.lower(): value for name, value in answer.getheaders()}

    def send_file(
        self, method: str, target: str, field: str, file: Path, name: str = "", **params: Any
    ) -> tuple[int, bytes]:
        """Status and body that answer a file in a form; `name` is what the client calls the file."""
        body, headers = _form(file, field, params, name)
        return self.ask(method, target, body, headers)[:2]

    def infer(self, model: str, image: str, output: str = "json", **params: Any) -> Any:
        """Parsed JSON for ``output="json"``, else the bytes of the file (``"image"``, ``"dicom_seg"``)."""
        query = urllib.parse.urlencode({"image": image, "output": output})
        body = urllib.parse.urlencode({"params": json.dumps(params)}).encode()
        content, _ = self.request(f"/infer/{model}?{query}", "POST", body)
        return json.loads(content) if output == "json" else content

    def infer_both(self, model: str, image: str, **params: Any) -> tuple[dict[str, Any], bytes]:
        """JSON and file, which come together when no kind is asked for."""
        query = urllib.parse.urlencode({"image": image})
        body = urllib.parse.urlencode({"params": json.dumps(params)}).encode()
        content, headers = self.request(f"/infer/{model}?{query}", "POST", body)
        kind = next(value for key, value in headers.items() if key.lower() == "content-type")
        message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
        parts = [part.get_payload(decode=True) for part in message.get_payload()]  # type: ignore[union-attr]
        return json.loads(parts[0]), parts[1]  # type: ignore[arg-type]

    def infer_file(self, model: str, file: Path, output: str = "json", **params: Any) -> Any:
        """Likewise, for an image that is sent along."""
        body, headers = _form(file, "file", params)
        content, _ = self.request(f"/infer/{model}?output={output}", "POST", body, headers)
        return json.loads(content) if output == "json" else content

    def save_label(self, image: str, file: Path, tag: str = "final", **params: Any) -> Any:
        """Upload a label."""
        body, headers = _form(file, "label", params)
        query = urllib.parse.urlencode({"image": image, "tag": tag})
        content, _ = self.request(f"/datastore/label?{query}", "PUT", body, headers)
        return json.loads(content)

    def next_sample(self, strategy: str) -> dict[str, Any]:
        """What an active learning strategy chooses."""
        sample: dict[str, Any] = self.post_json(f"/activelearning/{strategy}", {})
        return sample

    def train(self, model: str, **params: Any) -> Any:
        """Train and wait for the end."""
        return self.post_json(f"/train/{model}?run_sync=true", params)


def _form(file: Path, field: str, params: Mapping[str, Any], name: str = "") -> tuple[bytes, dict[str, str]]:
    """A multipart body with a file and params, and its header."""
    boundary = uuid.uuid4().hex
    fields = f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{json.dumps(params)}\r\n'
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name or file.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = fields.encode() + head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


StartLabelServer = Callable[..., LabelServer]
StartOrthanc = Callable[..., Server]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(server: Server, path: str) -> None:
    """Until the server answers.

    Raises:
        AssertionError: it ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"{server.process.args!r} ended at once:\n{server.tail()}"
        try:
            server.request(path, timeout=30)
            return
        except (OSError, RequestFailedError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(timeout=0.2)
    raise AssertionError(f"{server.process.args!r} does not answer within {START_SECONDS} s:\n{server.tail()}")


@pytest.fixture(scope="session")
def label_python() -> Path:
    """Python of MONAI Label's environment; skips where there is none."""
    python = Path(os.environ.get(VARIABLE) or REPOSITORY / ".venv-label" / "bin" / "python")
    if not python.exists():
        pytest.skip(f"MONAI Label's environment is missing: `make label-env` builds .venv-label, or set {VARIABLE}")
    return python


@pytest.fixture(scope="session")
def new_bundle(untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes copies of the demonstration bundle with prompts that nobody tuned, of the sizes that its configs state."""

    def make() -> Path:
        return untuned_bundle(
            tmp_path_factory.mktemp("bundle"), prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4
        )

    return make


@pytest.fixture(scope="session")
def stock_app(label_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes a folder of MONAI Label's own `monaibundle` app that serves the given bundle through a link."""

    def make(bundle: Path) -> Path:
        folder = tmp_path_factory.mktemp("app") / "monaibundle"
        shutil.copytree(label_python.parents[1] / "monailabel" / "sample-apps" / "monaibundle", folder)
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / bundle.name).symlink_to(bundle)
        return folder

    return make


@pytest.fixture(scope="session")
def label_server(label_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartLabelServer]:
    """Starts servers: ``label_server(app_dir, studies, environment={...}, models="anomalyclip_demo", ...)``.

    `studies` is a folder or the address of a DICOMweb server; all other keyword arguments become ``--conf name value``.
    Caches, home and temporary files lie in a folder of the test. All servers end with the session.
    """
    servers: list[LabelServer] = []

    def start(
        app_dir: Path, studies: Path | str, *, environment: Mapping[str, str] | None = None, **conf: object
    ) -> LabelServer:
        home = tmp_path_factory.mktemp("label_home")
        port = free_port()
        command = [str(label_python), "-m", "monailabel.main", "start_server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--app", str(app_dir), "--studies", str(studies)]
        for name, value in {"zoo_source": "local", "sam2": "false", **conf}.items():
            command += ["--conf", name, str(value)]
        (home / "tmp").mkdir()
        log = home / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=home,
                env={**_environment(label_python, home), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = LabelServer(f"http://127.0.0.1:{port}", process, log, str(studies))
        servers.append(server)
        wait_for(server, "/info/")
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.stop()


def _environment(python: Path, home: Path) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MONAI_LABEL"))},
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_SESSION_PATH": str(home / "sessions"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(home / "dicomweb"),
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "1",
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": '{"Modality": "CT,MR,CR,DX,ES"}',
    }


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartOrthanc]:
    """Starts Orthanc with DICOMweb and stores DICOM files in it: ``orthanc(files)``; ``f"{server.url}/dicom-web"``."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        pytest.skip("Orthanc or its DICOMweb plug-in is missing: `apt-get install orthanc orthanc-dicomweb`")
    servers: list[Server] = []

    def start(files: list[Path]) -> Server:
        folder = tmp_path_factory.mktemp("orthanc")
        port = free_port()
        configuration = {
            "StorageDirectory": "db",
            "IndexDirectory": "db",
            "Plugins": [str(PLUGIN)],
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        log = folder / "orthanc.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "orthanc.json"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        servers.append(server)
        wait_for(server, "/system")
        for file in files:
            server.request("/instances", "POST", file.read_bytes(), {"Content-Type": "application/dicom"})
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.stop()
