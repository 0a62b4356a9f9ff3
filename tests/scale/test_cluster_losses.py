# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of units that are lost, late or done twice: Dask's client and the clock put aside for scripted ones."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import pytest

from monai_anomalyclip.data.work_list import WorkUnit
from monai_anomalyclip.scale import cluster
from monai_anomalyclip.scale.cluster import ClusterDone, connected, predict_on_cluster
from monai_anomalyclip.scale.warm_run import RunOptions, WorkDone
from tests.archive.scenes import free_port

Outcome = BaseException | str  # an error, a status of Dask's, "ok", or "late"


class Future:
    """Of a unit; done in the step after it was begun, unless it is late."""

    def __init__(self, name: str, outcome: Outcome, begun: float, clock: SimpleNamespace) -> None:
        self.name, self.outcome, self.begun, self.clock = name, outcome, begun, clock
        self.cancelled = self.released = False

    def done(self) -> bool:
        return self.clock.now >= (200 if self.outcome == "late" else self.begun + 1)

    @property
    def status(self) -> str:
        if isinstance(self.outcome, BaseException):
            return "error"
        return "finished" if self.outcome in ("ok", "late") else self.outcome

    def exception(self) -> Outcome:
        return self.outcome

    def result(self) -> WorkDone:
        return WorkDone((self.name,))

    def cancel(self) -> None:
        self.cancelled = True

    def release(self) -> None:
        self.released = True


class Scheduler:
    """A client; outcomes of the tries of a unit by its name, one after the other; those of others are well."""

    status = "running"

    def __init__(self, clock: SimpleNamespace, **outcomes: list[Outcome]) -> None:
        self.clock, self.outcomes = clock, outcomes
        self.futures: list[Future] = []

    def submit(self, task: object, options: RunOptions, output: str, line: str, token: str, **_: Any) -> Future:
        (name,) = WorkUnit.from_json(line).names.values()
        outcome = (self.outcomes.get(name) or ["ok"]).pop(0)
        self.futures.append(Future(name, outcome, self.clock.now, self.clock))
        return self.futures[-1]

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {"one": {}}}

    def as_current(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass only while one waits."""
    made = SimpleNamespace(now=0.0)

    def wait(*_: object, **__: object) -> None:
        made.now += 1

    monkeypatch.setattr(distributed, "wait", wait)
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def units(count: int) -> Iterator[WorkUnit]:
    return (WorkUnit(f"{index:016x}", "frame", (f"{index}.png",), {"0": f"u{index}"}) for index in range(count))


def test_what_a_lost_worker_had_is_begun_again(clock: SimpleNamespace, tmp_path: Path) -> None:
    killed = distributed.KilledWorker("task", None, 4)
    client = Scheduler(clock, u0=[killed, "ok"], u2=["lost", "cancelled", "ok"])
    done = predict_on_cluster(client, units(4), tmp_path, RunOptions())
    assert (done.written, done.failed, done.redone) == (4, 0, 3)
    assert sorted(one.name for one in client.futures) == ["u0", "u0", "u1", "u2", "u2", "u2", "u3"]
    assert all(one.released for one in client.futures)


def test_an_error_of_the_work_itself_ends_it(clock: SimpleNamespace, tmp_path: Path) -> None:
    client = Scheduler(clock, u0=[FileExistsError("The folder holds other results.")])
    with pytest.raises(FileExistsError, match="holds other results"):
        predict_on_cluster(client, units(4), tmp_path, RunOptions())


@pytest.mark.parametrize("second", ["ok", "late"])
def test_whoever_is_first_wins(second: str, clock: SimpleNamespace, tmp_path: Path) -> None:
    """One try takes 200 s where others take 1: a second one is begun after 60; they are counted once."""
    told: list[int] = []
    client = Scheduler(clock, u3=["late", second])
    done = predict_on_cluster(client, units(8), tmp_path, RunOptions(), lambda now: told.append(now.written))
    assert (done.written, done.redone, told) == (8, 1, list(range(1, 9)))
    first, again = (one for one in client.futures if one.name == "u3")
    assert 60 < again.begun - first.begun < 65
    assert clock.now < 80 if second == "ok" else clock.now == 200
    assert (first.cancelled, again.cancelled) == ((True, False) if second == "ok" else (False, True))


def test_a_scheduler_that_is_gone(clock: SimpleNamespace, tmp_path: Path) -> None:
    client = Scheduler(clock)
    client.status = "closed"
    with pytest.raises(OSError, match=r"The scheduler is gone: .* the same command does the rest"):
        predict_on_cluster(client, units(1), tmp_path, RunOptions())


def test_reasons_are_listed_up_to_twenty() -> None:
    done = ClusterDone()
    for index in range(30):
        done.add(
            WorkDone(failed={f"u{index}": f"reason {index}"}, passing=frozenset({f"u{index}"} if index < 3 else ()))
        )
    assert (done.failed, done.passing) == (30, 3)
    assert done.reasons == {f"u{index}": f"reason {index}" for index in range(20)}


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda where, **words: real(where, **{**words, "timeout": 0.1}))
    where = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match=f"The scheduler '{where}' cannot be reached: is it running"), connected(where):
        pass


def test_what_happens_while_connected_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: contextlib.nullcontext("client"))
    late = TimeoutError("a network drive")
    with pytest.raises(TimeoutError, match="a network drive"), connected("tcp://127.0.0.1:1"):
        raise late


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeError, match="pip install distributed"), connected("local:1"):
        pass
