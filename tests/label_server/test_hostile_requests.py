# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Requests that must not get through: a real server is asked each of them, and its files are compared afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo.phantoms import sample_phantom

pytestmark = pytest.mark.label_server

SECRET = b"the secret of another folder"
LIMIT_MIB = 2
Start = Callable[..., Any]


@dataclass
class Asked:
    """A request and the statuses that answer it rightly; ``{root}`` in its address is the test's folder."""

    what: str
    method: str
    target: str
    status: tuple[int, ...] = (400,)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def query(path: str, **values: str) -> str:
    return f"{path}?{urllib.parse.urlencode(values)}"


def form(*parts: tuple[str, str | bytes, str | None], **more: str) -> tuple[bytes, dict[str, str]]:
    """A multipart body of (field, content, name of the file or None), and its header."""
    body = b""
    for name, content, filename in [*parts, *((name, value, None) for name, value in more.items())]:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'--limit\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + (content if isinstance(content, bytes) else content.encode()) + b"\r\n"
    return body + b"--limit--\r\n", {"Content-Type": "multipart/form-data; boundary=limit"}


def upload(
    what: str, target: str, *parts: tuple[str, str | bytes, str | None], status: tuple[int, ...] = (400,), **more: str
) -> Asked:
    body, headers = form(*parts, **more)
    return Asked(what, "PUT" if "/infer/" not in target else "POST", target, status, body, headers)


def infer(what: str, status: tuple[int, ...] = (400,), model: str = "anomaly", **params: Any) -> Asked:
    body = urllib.parse.urlencode({"params": json.dumps(params)}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Asked(what, "POST", f"/infer/{model}?image=polyp&output=json", status, body, headers)


def posted(what: str, target: str, content: Any, status: tuple[int, ...] = (400,)) -> Asked:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Asked(what, "POST", target, status, body, {"Content-Type": "application/json"})


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 60, 50)).save(stream, "png")
    return stream.getvalue()


def zipped(*entries: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def locked(archive: bytes) -> bytes:
    """A ZIP file of one entry that says that it is encrypted, where the entry begins and in the directory."""
    for place in (6, archive.index(b"PK\1\2") + 8):
        archive = archive[:place] + bytes([archive[place] | 1]) + archive[place + 1 :]
    return archive


def tarred(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def deep(levels: int) -> str:
    return '{"a": ' * levels + "1" + "}" * levels


IMAGE, LABEL, SESSION = "/datastore/image", "/datastore/label", "/session/"
FILE = ("file", picture(), "x.png")
MASK = ("label", picture(), "x.png")
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}


def hostile() -> Iterator[Asked]:
    # Names that lead elsewhere, where images are written
    yield upload("the app's own code", query(IMAGE, image="../app/main"), ("file", b"raise SystemExit", "x.py"))
    yield upload("beside the studies", query(IMAGE, image="../beside"), FILE)
    yield upload("by the old address", query("/datastore/", image="../beside"), FILE)
    yield upload("an absolute path", query(IMAGE, image="{root}/secret/x"), FILE)
    yield upload("a separator of Windows", query(IMAGE, image="..\\beside"), FILE)
    yield upload("a drive of Windows", query(IMAGE, image="C:beside"), FILE)
    yield upload("the parent", query(IMAGE, image=".."), FILE)
    yield upload("a NUL", query(IMAGE, image="x\0y"), FILE)
    yield upload("a line for the log", query(IMAGE, image="x\n[INFO] all is well"), FILE)
    yield upload("a name that no file system takes", query(IMAGE, image="x" * 300), FILE)
    yield upload("code among the studies", query(IMAGE, image="sitecustomize"), ("file", b"print(1)", "x.py"))
    yield upload("the datastore's own file", query(IMAGE, image="datastore_v2"), ("file", b"{}", "x.json"))
    yield upload("no name but the file's, which is none", IMAGE, ("file", picture(), ".."))
    yield upload("a link that leads out", query(IMAGE, image="linked"), FILE)
    yield upload("two names", f"{IMAGE}?image=new&image=../beside", FILE)
    yield upload("info that is no JSON", query(IMAGE, image="new"), FILE, params="{")
    yield upload("info that is a list", query(IMAGE, image="new"), FILE, params="[1]")
    yield upload("info that cannot be read again", query(IMAGE, image="new"), FILE, params='{"a": NaN}')
    yield upload("info too large to be read again", query(IMAGE, image="new"), FILE, params='{"a": 1e999}')
    yield upload("info that is no text", query(IMAGE, image="new"), FILE, params='{"a": "\\ud800"}')
    yield upload("info without a bottom", query(IMAGE, image="new"), FILE, params=deep(500))
    yield upload("info of the server's", query(IMAGE, image="new"), FILE, params='{"anomaly_descriptor": "x"}')
    yield upload("info twice", query(IMAGE, image="new"), FILE, ("params", "{}", None), ("params", "{}", None))
    yield upload("no file", query(IMAGE, image="new"), status=(400, 422), params="{}")
    yield Asked("a form that is none", "PUT", query(IMAGE, image="new"), (400,), b"nothing", form()[1])
    # Labels
    yield upload("a tag that leads out", query(LABEL, image="polyp", tag="../../../x"), MASK)
    yield upload("an absolute tag", query(LABEL, image="polyp", tag="{root}/secret"), MASK)
    yield upload("a label of an image elsewhere", query(LABEL, image="../polyp", tag="final"), MASK)
    yield upload("a label of no image", query(LABEL, image="nobody", tag="final"), MASK, status=(404,))
    yield upload("a label that is code", query(LABEL, image="polyp", tag="draft"), ("label", b"x", "x.py"))
    yield upload("a label in raw bytes", query(LABEL, image="polyp"), ("label", b"1", "x.bin"))
    yield upload("a label through a link", query(LABEL, image="polyp", tag="linked"), MASK)
    yield upload("a label's params", query(LABEL, image="polyp", tag="draft"), MASK, params="null")
    yield upload("segments that are none", query(LABEL, image="polyp"), MASK, params='{"label_info": [1]}')
    yield Asked("a label elsewhere", "GET", query(LABEL, label="polyp", tag="../../../secret"), (400,))
    yield Asked("no label", "GET", query(LABEL, label="polyp", tag="draft"), (404,))
    yield Asked("its info", "GET", query(f"{LABEL}/info", label="polyp", tag="draft"), (404,))
    yield Asked("removal elsewhere", "DELETE", query(LABEL, id="polyp", tag="../../app"), (400,))
    yield Asked("removal of none", "DELETE", query(LABEL, id="polyp", tag="draft"), (404,))
    yield Asked("removal of an image elsewhere", "DELETE", query(IMAGE, id="../app/main"), (400,))
    yield Asked("removal of no image", "DELETE", query(IMAGE, id="nobody"), (404,))
    yield Asked("removal through a link", "DELETE", query(IMAGE, id="linked"), (400,))
    # Reading
    yield Asked("an image elsewhere", "GET", query(IMAGE, image="{root}/secret/file.png"), (400,))
    yield Asked("no image", "GET", query(IMAGE, image="nobody"), (404,))
    yield Asked("the info of no image", "GET", query(f"{IMAGE}/info", image="nobody"), (404,))
    yield Asked("a check sum of a kind", "HEAD", query(IMAGE, image="polyp", check_sum="MD4:00"), (400,))
    info = urllib.parse.urlencode({"info": '{"strategy": 1}'}).encode()
    yield Asked("info that breaks strategies", "PUT", query(f"{IMAGE}/info", image="polyp"), (400,), info, URLENCODED)
    info = urllib.parse.urlencode({"info": "[]"}).encode()
    yield Asked("info that is none", "PUT", query(f"{IMAGE}/info", image="polyp"), (400,), info, URLENCODED)
    yield Asked("a data set of nothing", "GET", "/datastore/dataset", (404,))
    # Inference
    yield Asked("any file", "POST", query("/infer/anomaly", image="{root}/secret/file.png"), (400,))
    yield Asked("the system's files", "POST", query("/infer/anomaly", image="/etc/passwd"), (400,))
    yield Asked("a file where the server runs", "POST", query("/infer/anomaly", image="server.log"), (404,))
    yield Asked("an unknown image", "POST", query("/infer/anomaly", image="nobody"), (404,))
    yield Asked("an unknown model", "POST", query("/infer/nothing", image="polyp"), (404,))
    yield Asked("no image at all", "POST", "/infer/anomaly", (400,))
    yield infer("an image among the options", image="{root}/secret/file.png")
    yield infer("a session among the options", session={"image": "/etc/passwd"})
    yield infer("a label's tag among the options", save_label=True, label_tag="../../../x")
    yield infer("a suffix that is a path", result_extension="/../../x.nii.gz")
    yield infer("a kind of file that is none", result_extension=".py")
    yield infer("numbers that are none", result_dtype="object")
    yield infer("a threshold in a list", threshold=[1])
    yield infer("a threshold that is nothing", threshold=None)
    yield infer("a threshold that is a word", threshold="high")
    yield infer("a device on which weights vanish", device="meta")
    yield infer("a device that is a number", device=5)
    yield infer("a preset that is an object", preset={"a": 1})
    yield infer("another model", model="anomaly", **{"strategy": "x"})
    yield infer("an area that is a list", model="anomaly_polygons", min_poly_area=[])
    target = query("/infer/anomaly", image="polyp")
    for what, text in [
        ("no JSON", "{"),
        ("a list", "[1]"),
        ("a word", '"x"'),
        ("nothing", "null"),
        ("depth", deep(99999)),
    ]:
        body = urllib.parse.urlencode({"params": text}).encode()
        yield Asked(f"params: {what}", "POST", target, (400,), body, URLENCODED)
    yield Asked("polygons as a file", "POST", query("/infer/anomaly_polygons", image="polyp", output="image"), (400,))
    yield Asked("DICOM of a picture", "POST", query("/infer/anomaly", image="polyp", output="dicom_seg"), (400,))
    yield Asked("an unknown kind of answer", "POST", query("/infer/anomaly", image="polyp", output="x"), (422,))
    yield upload("a damaged image", "/infer/anomaly", ("file", b"nothing", "x.nii.gz"))
    yield upload("an upload without a name", "/infer/anomaly", ("file", picture(), ""))
    yield upload("an upload with a NUL", "/infer/anomaly", ("file", picture(), "x\0.png"))
    yield upload("a label", query("/infer/anomaly", image="polyp"), ("label", b"1", "x.bin"))
    yield posted("a slide elsewhere", query("/infer/wsi/anomaly", image="{root}/secret/file.png"), {})
    yield posted("a slide's options", query("/infer/wsi/anomaly", image="polyp"), {"params": {"image": "/etc/passwd"}})
    # Sessions
    yield Asked("a session elsewhere", "POST", query("/infer/anomaly", session_id="../../secret"), (404,))
    yield Asked("the sessions' folder", "GET", "/session/..", (404,))
    yield Asked("its removal", "DELETE", "/session/..", (404,))
    yield Asked("no session", "GET", "/session/00000000-0000-0000-0000-000000000000", (404,))
    yield upload("a session's file elsewhere", SESSION, ("files", picture(), "../.."))
    unpack = f"{SESSION}?uncompress=true"
    yield upload("a tar that leads out", unpack, ("files", tarred("../../../../secret/x", b"x"), "x.tar"))
    yield upload("a tar under another name", unpack, ("files", tarred("../../../../secret/x", b"x"), "x.zip"))
    yield upload("a zip that leads out", unpack, ("files", zipped(("../../x", b"x")), "x.zip"))
    yield upload("a zip with an absolute path", unpack, ("files", zipped(("/x", b"x")), "x.zip"))
    yield upload("a zip with a file as a folder", unpack, ("files", zipped(("a", b"x"), ("a/b", b"x")), "x.zip"))
    yield upload("a zip of zeros", unpack, ("files", zipped(("x", bytes(LIMIT_MIB * 2**20 + 1))), "x.zip"))
    yield upload("a zip that is locked", unpack, ("files", locked(zipped(("x", b"x"))), "x.zip"))
    yield upload("a zip that ends early", unpack, ("files", zipped(("x", b"x" * 999))[:90], "x.zip"))
    # Options of tasks, which would go to another process
    yield posted("code for the worker", "/train/anomaly", {"bundle_path": "{root}/secret"})
    yield posted("code for all workers", "/train/", {"anomaly": {"bundle_path": "{root}/secret"}})
    yield posted("an unknown trainer", "/train/nothing", {}, (404,))
    yield posted("epochs that are none", "/train/anomaly?run_sync=true", {"max_epochs": "many"})
    yield posted("endless epochs", "/train/anomaly", {"max_epochs": 1e999})
    yield posted("options that are a word", "/train/", {"anomaly": "x"})
    yield posted("options that are a list", "/train/anomaly", [1], (400, 422))
    yield posted("options that are no JSON", "/train/anomaly", b'{"max_epochs": NaN}')
    yield Asked(
        "bytes that are no text", "POST", "/train/anomaly", (400,), b"\xff\xfe\xfa", {"Content-Type": "text/plain"}
    )
    yield posted("too many options", "/train/anomaly", {"a": "x" * 70_000})
    yield posted("a variable of the worker's", "/scoring/anomaly_score", {"gpus": "0\0"})
    yield posted("an unknown score", "/scoring/nothing", {}, (404,))
    yield posted("an unknown strategy", "/activelearning/nothing", {}, (404,))
    yield posted("images elsewhere", "/batch/infer/anomaly?run_sync=true", {"images": ["/etc/passwd"]})
    yield posted("unknown images", "/batch/infer/anomaly?run_sync=true", {"images": ["nobody"]}, (404,))
    yield posted("a tag elsewhere", "/batch/infer/anomaly?run_sync=true", {"label_tag": "../../../x"})
    # Prompts, logs, pages
    body, headers = form(("file", b"nothing", "x.pt"))
    yield Asked("other prompts", "PUT", "/model/anomaly", (403,), body, headers)
    yield Asked("removal of prompts", "DELETE", "/model/anomaly", (403,))
    yield Asked("an unknown model's prompts", "GET", "/model/nothing", (404,))
    yield Asked("more lines than there are", "GET", "/logs/?lines=99999999999999999999")
    yield Asked("a second app", "POST", "/reload", (404, 405))
    yield Asked("an archive that is not there", "GET", "/proxy/dicom/studies", (404,))
    yield Asked("the archive's own address", "POST", "/proxy/dicom/%252e%252e/instances", (400,))
    yield Asked("a file beside the viewer", "GET", "/ohif/%2e%2e/%2e%2e/main.py", (400,))
    yield Asked("the folder of the viewer", "GET", "/ohif/..", (400,))
    yield Asked("a folder in the viewer", "GET", "/ohif/assets/", (404,))
    yield Asked("a file beside the pages", "GET", "/static/../../main.py", (404,))
    # Who asks
    yield Asked("a name that leads here", "GET", "/info/", (400,), headers={"Host": "attacker.example.org"})
    yield Asked("that name with the port", "GET", "/info/", (400,), headers={"Host": "attacker.example.org:{port}"})
    yield Asked("another port", "GET", "/info/", (400,), headers={"Host": "127.0.0.1:1"})
    yield Asked("no name", "GET", "/info/", (400,), headers={"Host": ""})
    origin = {"Origin": "http://attacker.example.org"}
    yield Asked("another page", "GET", "/info/", (403,), headers=origin)
    yield Asked("a page of nobody", "GET", "/info/", (403,), headers={"Origin": "null"})
    yield Asked("another server here", "GET", "/info/", (403,), headers={"Origin": "http://127.0.0.1:3000"})
    yield Asked(
        "what it may do", "OPTIONS", "/info/", (403,), headers={**origin, "Access-Control-Request-Method": "PUT"}
    )
    body, headers = form(MASK)
    yield Asked("its form", "PUT", query(LABEL, image="polyp"), (403,), body, {**headers, **origin})
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    yield Asked("its picture", "GET", query(IMAGE, image="polyp"), (403,), headers=embedded)
    # Size
    yield upload("a large file", query(IMAGE, image="new"), ("file", bytes(LIMIT_MIB * 2**20), "x.png"), status=(413,))
    body, headers = form(("file", bytes(LIMIT_MIB * 2**20), "x.png"))
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    headers["Transfer-Encoding"] = "chunked"
    yield Asked("one that does not say so", "PUT", query(IMAGE, image="new"), (413,), chunked, headers)


REQUESTS = list(hostile())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, untuned_bundle: Callable[..., Path]) -> Path:
    """A folder with an app, its bundle, studies with two links that lead out, and what they lead to."""
    root = tmp_path_factory.mktemp("hostile")
    assert main(["label-app", str(root / "app"), "--bundle", str(untuned_bundle(root))]) == 0
    (root / "secret").mkdir()
    (root / "secret" / "file.png").write_bytes(SECRET)
    (root / "studies" / "labels").mkdir(parents=True)
    Image.fromarray(sample_phantom("endoscopy", True, 4).image).save(root / "studies" / "polyp.png")
    (root / "studies" / "linked.png").symlink_to(root / "secret" / "file.png")
    (root / "studies" / "labels" / "linked").symlink_to(root / "secret")
    return root


@pytest.fixture(scope="module")
def server(label_server: Start, root: Path) -> Any:
    return label_server(root / "app", root / "studies", max_upload_mib=LIMIT_MIB)


def ask(server: Any, root: Path, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
    target = asked.target.replace("%7Broot%7D", urllib.parse.quote(str(root), safe=""))
    body = None if asked.body is None else asked.body.replace(b"{root}", str(root).encode())
    answer: tuple[int, bytes, dict[str, str]] = server.ask(asked.method, target, body, asked.headers)
    return answer


def files(folder: Path, *left_out: str) -> dict[str, str]:
    """Digest of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(path.is_relative_to(folder / name) for name in left_out)
    }


def everything(server: Any, root: Path) -> dict[str, str]:
    """All that lies where the server may write, but for its logs and the times that it notes of the studies."""
    home = server.log.parent
    inside = files(root, "app/logs", "studies/datastore_v2.json")
    return inside | {f"home/{name}": digest for name, digest in files(home, "server.log").items()}


@pytest.fixture(scope="module")
def before(server: Any, root: Path) -> dict[str, str]:
    return everything(server, root)


def test_there_are_enough_requests() -> None:
    assert len({(asked.method, asked.target, asked.body, *asked.headers.items()) for asked in REQUESTS}) >= 120
    assert all(status >= 400 and status != 500 for asked in REQUESTS for status in asked.status)


@pytest.mark.parametrize("asked", REQUESTS, ids=[asked.what.replace(" ", "_") for asked in REQUESTS])
def test_hostile_request_is_refused_and_nothing_changes(
    server: Any, root: Path, before: dict[str, str], asked: Asked
) -> None:
    status, content, headers = ask(server, root, asked)
    assert status in asked.status, (status, content[:500], server.tail()[-2500:])
    assert SECRET not in content
    assert "access-control-allow-origin" not in headers
    if status in (400, 403, 413) and asked.method != "HEAD" and b"Content Too Large" not in content:
        detail = json.loads(content)["detail"]
        assert detail.endswith("."), detail
    assert everything(server, root) == before


def test_server_answers_as_before(server: Any, root: Path, before: dict[str, str]) -> None:
    assert 0 <= server.infer("anomaly", "polyp")["anomaly_score"] <= 1
    objects = server.get("/datastore/?output=all")["objects"]
    assert set(objects) == {"polyp", "linked"}
    assert all(entry["labels"] == {} for entry in objects.values())
    assert server.next_sample("first")["id"] in objects
    main_py = (root / "app" / "main.py").read_text()
    assert "AnomalyLabelApp" in main_py
