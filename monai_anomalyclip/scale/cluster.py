# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A work on a Dask cluster: each worker loads the model once, and takes the next input when it has done one."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_anomalyclip.atomic_file import make_private_folder
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import ReadOptions
from monai_anomalyclip.data.work_list import WorkUnit, sources_of_units
from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun, WorkDone
from monai_anomalyclip.writers.output_folder import OutputFolder

__all__ = ["ClusterDone", "connected", "predict_on_cluster", "score_unit"]

_MOST_TRIES = 2  # of an input that its worker does not survive
_AHEAD = 2  # units per worker that are on their way
_STRAGGLER = 5.0  # times the median after which a unit is begun once more elsewhere
_SHORTEST_STRAGGLER = 60.0  # seconds
_LISTED = 20


@dataclass
class ClusterDone:
    """What became of a work.

    Args:
        written: number of inputs that were scored now.
        failed: number of those that failed.
        passing: number of the failed that may do well another time.
        redone: number of units that were begun again, of lost workers and stragglers.
        reasons: why, of the first of the failed.
    """

    written: int = 0
    failed: int = 0
    passing: int = 0
    redone: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, done: WorkDone) -> None:
        """Count what a unit gave."""
        self.written += len(done.written)
        self.failed += len(done.failed)
        self.passing += len(done.passing)
        for name, reason in done.failed.items():
            if len(self.reasons) < _LISTED:
                self.reasons[name] = reason


_WARM: dict[tuple[str, str], tuple[WarmRun, OutputFolder]] = {}  # of this process: one worker does one work


def score_unit(options: RunOptions, output: str, line: str, token: str) -> WorkDone:
    """What a worker does: score the inputs of a unit and write their results.

    A unit whose worker died twice is not begun a third time: its inputs fail, with that reason.

    Args:
        options: what results are made with.
        output: the folder of the results, which all workers see.
        line: the unit, see :class:`~monai_anomalyclip.data.work_list.WorkUnit`.
        token: of the run, which tries are counted by.
    """
    key = (repr(options), output)
    if key not in _WARM:
        _WARM.clear()
        _WARM[key] = (WarmRun(options), OutputFolder(output))
    run, folder = _WARM[key]
    unit = WorkUnit.from_json(line)
    catalogue = InputCatalogue([], options=ReadOptions(**run.reading), empty=True)
    catalogue.sources = sources_of_units([unit], catalogue.options)
    with _try(folder, unit, token) as allowed:
        if not allowed:
            reason = f"The worker that scored it was lost {_MOST_TRIES} times, perhaps because memory ran out."
            return run.fail(catalogue, folder, reason)
        return run(catalogue, folder)


@contextlib.contextmanager
def _try(folder: OutputFolder, unit: WorkUnit, token: str) -> Iterator[bool]:
    """Whether there may be a further try; one that ends, well or not, is forgotten, one of a killed worker stays."""
    tries = folder.path / ".report" / "tries"
    make_private_folder(tries)
    name = f"{token}-{unit.group}"
    before = len(list(tries.glob(f"{name}-*")))
    own = tries / f"{name}-{uuid.uuid4().hex[:8]}"
    own.touch(0o600)
    try:
        yield before < _MOST_TRIES
    finally:
        own.unlink(missing_ok=True)


@contextlib.contextmanager
def connected(where: str) -> Iterator[Any]:
    """A client of a cluster.

    Args:
        where: ``local:N``: N workers on this machine, on loopback alone, each with a GPU of its own where there are
            some; else the address of a scheduler, such as ``tcp://scheduler:8786`` (``tls://...`` with Dask's own
            configuration of certificates).

    Raises:
        RuntimeError: Dask distributed is missing.
        ValueError: it is neither.
        OSError: the scheduler cannot be reached.
    """
    try:
        import dask
        from distributed import Client
    except ModuleNotFoundError as error:
        raise RuntimeError("A cluster needs Dask distributed: pip install distributed.") from error
    local = re.fullmatch(r"local:(\d{1,3})", where)
    if local is None and not re.fullmatch(r"(tcp|tls|ucx)://[^\s/]+:\d+", where):
        raise ValueError(f"{where[:60]!r} is no cluster: give local:N, or tcp://HOST:PORT of a Dask scheduler.")
    settings = {"distributed.worker.daemon": False, "distributed.scheduler.worker-saturation": 1.0}
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        address = where
        if local is not None:
            address = stack.enter_context(_local_cluster(int(local[1])))
        try:
            client = stack.enter_context(Client(address, timeout=30, set_as_default=False))
        except OSError as error:
            raise OSError(f"The scheduler {where!r} cannot be reached: is it running?") from error
        yield client


def _local_cluster(workers: int) -> Any:
    from distributed import Nanny, Scheduler, SpecCluster

    if workers < 1:
        raise ValueError("local:N needs at least one worker.")
    gpus = _gpus()
    specs = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "host": "127.0.0.1",
                "dashboard": False,
                "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
                "memory_limit": 0,  # the model's, which Dask would take for a leak
            },
        }
        for number in range(workers)
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    return SpecCluster(workers=specs, scheduler=scheduler, asynchronous=False, silence_logs=True)


def _gpus() -> list[str]:
    """Numbers of the GPUs that this process sees."""
    import torch

    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return visible or [str(number) for number in range(torch.cuda.device_count())]


def predict_on_cluster(
    client: Any,
    units: Iterable[WorkUnit],
    output: Path,
    options: RunOptions,
    on_done: Callable[[ClusterDone], None] | None = None,
) -> ClusterDone:
    """Score the units of a work on the workers of a cluster, which all see its files and the folder of results.

    At most two units per worker are on their way, however long the work is. A unit whose worker is lost, or that takes
    five times as long as others when nothing else is left, is begun once more; whoever is first wins.

    Args:
        client: see :func:`connected`.
        units: the work; may be read as it is done.
        output: folder of the results.
        options: what results are made with.
        on_done: told after each unit.

    Raises:
        OSError: the scheduler is gone.
    """
    from distributed import KilledWorker, wait

    done = ClusterDone()
    token = uuid.uuid4().hex[:8]
    waiting = iter(units)
    running: dict[Any, _Begun] = {}
    spent: list[float] = []

    def begin(unit: WorkUnit, tries: int = 0) -> None:
        future = client.submit(
            score_unit, options, str(output), unit.to_json(), token, key=f"unit-{uuid.uuid4().hex}", pure=False
        )
        running[future] = _Begun(unit, time.monotonic(), tries)

    def fill() -> None:
        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        while len(running) < _AHEAD * workers:
            unit = next(waiting, None)
            if unit is None:
                return
            begin(unit)

    fill()
    while running:
        with contextlib.suppress(TimeoutError), client.as_current():
            wait(list(running), timeout=5, return_when="FIRST_COMPLETED")
        if client.status not in ("running", "connecting"):
            raise OSError("The scheduler is gone: what is finished is kept, and the same command does the rest.")
        for future in [one for one in running if one.done()]:
            if future not in running:  # the other try of it was first
                continue
            begun = running.pop(future)
            error = future.exception() if future.status == "error" else None
            if isinstance(error, KilledWorker) or future.status in ("lost", "cancelled"):
                done.redone += 1
                begin(begun.unit, begun.tries + 1)
            elif error is not None:
                raise error
            else:
                done.add(future.result())
                spent = [*spent[-200:], time.monotonic() - begun.since]
                for other in [one for one, its in running.items() if its.unit is begun.unit]:
                    other.cancel()
                    del running[other]
                if on_done is not None:
                    on_done(done)
            future.release()
        fill()
        for begun in _stragglers(running, spent):
            done.redone += 1
            begin(begun.unit, begun.tries + 1)
    return done


@dataclass
class _Begun:
    unit: WorkUnit
    since: float
    tries: int


def _stragglers(running: dict[Any, _Begun], spent: list[float]) -> list[_Begun]:
    """Units that have one try alone and take far longer than others did."""
    if len(spent) < 5:
        return []
    limit = max(_SHORTEST_STRAGGLER, _STRAGGLER * statistics.median(spent))
    units = [begun.unit for begun in running.values()]
    now = time.monotonic()
    return [
        begun
        for begun in running.values()
        if begun.tries == 0 and units.count(begun.unit) == 1 and now - begun.since > limit
    ]
