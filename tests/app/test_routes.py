# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Requests as a page sends them, and as it never would, to the real server."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from monai_anomalyclip.app.serving import Server
from monai_anomalyclip.app.studies import Runner, Study
from monai_anomalyclip.writers import InputRecord, InputState, OutputFolder
from monai_anomalyclip.writers.output_folder import preview_path
from tests.app.conftest import Scored

Ask = Callable[..., tuple[int, Any]]


@contextmanager
def serving(made: Scored) -> Iterator[Ask]:
    with Server(made.place.folder, ["--bundle", "none"], most_bytes=1000, most_files=3) as server:
        parts = urlsplit(server.address)
        origin = f"{parts.scheme}://{parts.netloc}"

        def ask(method: str, path: str, content: Any = None, **headers: str) -> tuple[int, Any]:
            data = content if isinstance(content, bytes) else None if content is None else json.dumps(content).encode()
            sent = {"Origin": origin, "Content-Type": "application/json", **headers}
            request = urllib.request.Request(server.address + path, data, sent, method=method)
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    status, body = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, body = error.code, b""
                with suppress(ConnectionError):  # what is refused unread may end with a reset, after the status
                    body = error.read()
            try:
                return status, json.loads(body)
            except ValueError:
                return status, body

        for _ in range(100):  # until it listens
            try:
                ask("GET", "")
                break
            except OSError:
                continue
        yield ask


@pytest.fixture
def served(scored: Callable[[], Scored]) -> Iterator[tuple[Scored, Ask]]:
    made = scored()
    with serving(made) as ask:
        yield made, ask


def test_results_and_review(served: tuple[Scored, Ask]) -> None:
    (_, study, masks), ask = served
    key = f"api/studies/{study.record.id}"
    volume = next(name for name, mask in masks.items() if mask.ndim == 3)
    status, found = ask("GET", key)
    assert status == 200
    assert [(row["rank"], row["status"]) for row in found["inputs"]] == [(1, "done"), (2, "done")]
    assert found["inputs"][0]["name"] == volume
    status, shown = ask("GET", f"{key}/preview?name={quote(volume)}")
    assert (status, shown["name"], len(shown["sources"])) == (200, volume, 5)
    status, regions = ask("GET", f"{key}/findings?name={quote(volume)}")
    assert [region["verdict"] for region in regions["regions"]] == ["open", "open"]
    decided = {"name": volume, "finding": 1, "verdict": "accepted", "note": "", "revision": regions["revision"]}
    assert ask("PUT", f"{key}/review", decided)[0] == 200
    assert ask("PUT", f"{key}/review", {**decided, "verdict": "rejected"})[0] == 409  # a tab that has not seen it
    assert ask("PUT", f"{key}/review", {**decided, "finding": 7})[0] == 404
    assert ask("PUT", f"{key}/review", {**decided, "verdict": "maybe"})[0] == 422
    assert ask("GET", key)[1]["inputs"][0]["accepted"] == 1
    status, archive = ask("GET", f"{key}/accepted.zip")
    assert status == 200
    assert archive.startswith(b"PK")


def test_hostile_names_reach_nothing(served: tuple[Scored, Ask], tmp_path: Path) -> None:
    (place, study, _), ask = served
    (tmp_path / "secret_record.json").write_text("secret")
    before = sorted(tmp_path.rglob("*"))
    key = f"api/studies/{study.record.id}"
    for name in ("../../../../secret", "/etc/passwd", "..%2F..%2Fsecret", "%00", "<script>", "a" * 5000):
        for kind in ("preview", "findings"):
            assert ask("GET", f"{key}/{kind}?name={quote(name)}")[0] == 404
    for path in ("api/studies/..", "api/studies/../../etc/passwd", "..%2f..%2fstudy.json", "app.js/../../x"):
        assert ask("GET", path)[0] == 404
    status, new = ask("POST", "api/studies", {"title": "<b>"})
    assert status == 200
    files = f"api/studies/{new['id']}/files?path="
    for name in ("../x", "/x", "a/../../x", "..\\x", "x" * 300, ""):
        assert ask("PUT", files + quote(name), b"x")[0] == 413
    assert ask("PUT", files + "big", bytes(2000))[0] == 413
    sent = place.folder / "studies" / new["id"]
    assert sorted(path for path in tmp_path.rglob("*") if sent not in (path, *path.parents)) == before
    assert ask("PUT", f"{key}/files?path=late", b"x")[0] == 409
    assert ask("DELETE", f"api/studies/{new['id']}")[0] == 200
    assert not sent.exists()


def test_paths_of_the_machine(served: tuple[Scored, Ask]) -> None:
    (place, _, _), ask = served
    for path in ("relative", "/no/such/folder", str(place.folder), str(place.folder.parent)):
        status, answer = ask("POST", "api/studies", {"path": path})
        assert (status, isinstance(answer["detail"], str)) == (400, True), path


def test_other_pages_and_other_names_are_refused(served: tuple[Scored, Ask]) -> None:
    _, ask = served
    assert ask("POST", "api/studies", {}, Origin="http://evil.example")[0] == 403
    assert ask("GET", "api/studies", Host="evil.example")[0] == 421
    assert ask("GET", "../wrong/")[0] == 404


def test_what_cannot_be_done_now(
    served: tuple[Scored, Ask], tmp_path: Path, picture: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study on the machine is scored at once; while it is, it is neither started nor removed."""
    begun, end = threading.Event(), threading.Event()
    settings: list[tuple[str, ...]] = []

    def score(runner: Runner, study: Study) -> None:
        settings.append(study.record.settings)
        study.change(state="running")
        begun.set()
        end.wait(600)

    monkeypatch.setattr(Runner, "_score", score)
    ask = served[1]
    picture(tmp_path / "skin" / "a.png")
    wanted = {"path": str(tmp_path / "skin"), "threshold": 0.25, "preset": "ct-lung"}
    status, new = ask("POST", "api/studies", wanted)
    assert (status, new["title"], new["sent"]) == (200, "skin", False)
    try:
        assert begun.wait(600)
        assert settings == [("--threshold", "0.25", "--preset", "ct-lung")]
        key = f"api/studies/{new['id']}"
        assert {one["id"]: one["state"] for one in ask("GET", "api/studies")[1]}[new["id"]] == "running"
        refused = ask("POST", f"{key}/start")
        assert refused == (409, {"detail": "This study is being scored already."})
        assert ask("DELETE", key) == (409, {"detail": "Stop this study first."})
        assert ask("POST", f"{key}/stop")[1]["state"] == "stopped"
        assert ask("POST", f"{key}/stop")[1]["state"] == "stopped"
        assert ask("GET", f"{key}/accepted.zip") == (409, {"detail": "There are no results yet."})
        assert ask("DELETE", key)[0] == 200
        assert (tmp_path / "skin" / "a.png").is_file()
        assert new["id"] not in {one["id"] for one in ask("GET", "api/studies")[1]}
    finally:
        end.set()
    _, empty = ask("POST", "api/studies", {"title": "Later"})
    assert ask("POST", f"api/studies/{empty['id']}/start") == (400, {"detail": "There are no files yet."})


def test_inputs_that_failed_and_previews_that_are_gone(scored: Callable[[], Scored]) -> None:
    made = scored()
    failed = InputRecord(name="b", source="nifti", status="failed", reason="The file is cut.")
    OutputFolder(made.study.results).put(InputState(name="b", state="failed", record=failed))
    made.study.change(names=("b", "c", *made.study.record.names))
    name, key = next(iter(made.masks)), f"api/studies/{made.study.record.id}"
    with serving(made) as ask:
        status, found = ask("GET", key)
        assert (status, found["total"], found["finished"], found["failed"]) == (200, 4, 2, 1)
        shown = [(row["name"], row["status"], row["reason"]) for row in found["inputs"][2:]]
        assert shown == [("b", "failed", "The file is cut."), ("c", "waiting", "")]
        assert ask("GET", f"{key}/preview?name={quote(name)}")[0] == 200
        preview_path(made.study.results, name).unlink()
        gone = ask("GET", f"{key}/preview?name={quote(name)}")
        assert gone == (404, {"detail": "There is no preview of this input."})
