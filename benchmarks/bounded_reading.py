# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Process inputs that nobody vouches for in a process of its own, which may hang, die or eat memory without harm."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import psutil
from torch import Tensor

__all__ = ["BoundedReader", "Outcome"]

_MEBIBYTE = 2**20
_LOOK_SECONDS = 0.5


class Outcome(NamedTuple):
    """How it went.

    Args:
        sentences: what was said to the user: why files are skipped, cannot be read, or have no results.
        loaded: number of inputs that were read.
        fault: what must never happen: another exception, a hang, the end of the process; or "".
        noise: what went to standard error besides.
        seconds: of the processor that it took.
        grown: bytes by which the process' memory grew at most.
    """

    sentences: tuple[str, ...]
    loaded: int
    fault: str
    noise: str
    seconds: float
    grown: int


class BoundedReader:
    """A process that finds, describes and loads all inputs of a folder, as ``inspect`` and ``predict`` do.

    Args:
        seconds: of the processor, after which a case counts as a hang, and so many on the clock in which the process
            only waits; the next case gets a new process. How busy the machine is does not count.
        mebibytes: of address space that a case may take; beyond that, allocations fail.
        results: folder below which results are written, with the picture itself as the map; None for none.
    """

    def __init__(self, seconds: float = 20, mebibytes: int = 6144, results: Path | None = None) -> None:
        self.seconds = seconds
        self.mebibytes = mebibytes
        self.results = results
        self._process: SpawnProcess | None = None
        self._context = multiprocessing.get_context("spawn")

    def __enter__(self) -> BoundedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def read(self, path: Path) -> Outcome:
        """Read a file or a folder."""
        if self._process is None:
            self._start()
        process = psutil.Process(self._process.pid)  # type: ignore[union-attr]
        begun = used = _seconds_of(process)
        waits_since = time.monotonic()
        self._connection.send(path)
        fault = ""
        try:
            while not fault:
                if self._connection.poll(min(_LOOK_SECONDS, self.seconds)):
                    outcome: Outcome = self._connection.recv()
                    return outcome
                before, used = used, _seconds_of(process)
                if used > before or process.status() not in (psutil.STATUS_SLEEPING, psutil.STATUS_IDLE):
                    waits_since = time.monotonic()
                if used - begun > self.seconds or time.monotonic() - waits_since > self.seconds:
                    fault = f"no end after {self.seconds} s"
        except (EOFError, ConnectionResetError, psutil.NoSuchProcess):
            fault = "the process ended"
        self._stop(at_once=True)
        return Outcome((), 0, fault, "", used - begun, 0)

    def _start(self) -> None:
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(other, self.mebibytes, self.results), daemon=True)
        self._process.start()
        other.close()
        if self._connection.recv() != "ready":  # EOFError when it ended
            raise RuntimeError("The reading process did not start.")

    def _stop(self, at_once: bool = False) -> None:
        if self._process is None:
            return
        if not at_once:
            self._connection.send(None)
            self._process.join()
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._process = None


def _seconds_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _serve(connection: Connection, mebibytes: int, results: Path | None) -> None:
    # Before memory is bounded and measured, all that reading and writing would import when it is first needed.
    import monai.transforms  # noqa: F401

    import monai_anomalyclip.data.facts
    import monai_anomalyclip.data.input_loader
    import monai_anomalyclip.handlers.result_writer
    import monai_anomalyclip.inferers.slice_inferer
    import monai_anomalyclip.transforms.intensity  # noqa: F401

    taken = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (taken + mebibytes * _MEBIBYTE,) * 2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), sys.stderr.fileno())  # of libraries in C, too
        connection.send("ready")
        while (path := connection.recv()) is not None:
            outcome = _outcome(path, results)
            sys.stderr.flush()
            noise.seek(0)
            said = noise.read().decode(errors="replace")
            noise.truncate(0)
            noise.seek(0)
            connection.send(outcome._replace(noise=said))


def _outcome(path: Path, results: Path | None) -> Outcome:
    from monai_anomalyclip.data import InputCatalogue
    from monai_anomalyclip.data.facts import excluded_facts, facts_of

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the case before
    before, begun = _status("VmRSS"), time.process_time()
    sentences: list[str] = []
    loaded, fault = 0, ""
    try:
        catalogue = InputCatalogue(path, empty=True)
        sentences += [file.detail or file.code for file in catalogue.skipped]
        for series in catalogue.excluded:
            sentences += excluded_facts(series).notes
        for name, source in catalogue.sources.items():
            facts = facts_of(name, source)
            sentences += [*facts.notes, *([facts.problem] if facts.problem else [])]
        for item in catalogue.items():
            try:
                image = item["image"].load()
            except ValueError as error:  # UnreadableInputError is one
                sentences.append(str(error))
            else:
                loaded += 1
                sentences.append(str(image.meta.get("notes", "")))
                if results is not None:
                    sentences += _write(catalogue, {**item, "image": image}, results)
    except Exception:
        fault = traceback.format_exc()
    seconds = time.process_time() - begun
    return Outcome(tuple(filter(None, sentences)), loaded, fault, "", seconds, _status("VmHWM") - before)


class _Picture:
    """A network whose map is the picture itself."""

    backbone_name, backbone_sha256 = "none", "0" * 64

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def parameters(self) -> Iterator[Tensor]:
        return iter(())

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        anomaly_map = images.mean(dim=1, keepdim=True).sigmoid()
        return {"anomaly_map": anomaly_map, "anomaly_score": anomaly_map.amax(dim=(1, 2, 3))}


def _write(catalogue: Any, item: dict[str, Any], folder: Path) -> list[str]:
    """Score and write one input as the bundles do; returns why that failed."""
    from ignite.engine import Engine

    from monai_anomalyclip.handlers import AnomalyResultWriter
    from monai_anomalyclip.inferers import AnomalySliceInferer
    from monai_anomalyclip.transforms import ScaleIntensityForCLIPd

    network = _Picture()
    try:
        scaled = ScaleIntensityForCLIPd("image")(item)
    except ValueError as error:
        return [str(error)]
    scored = AnomalySliceInferer(16, sigma=0)(scaled["image"][None], network)
    writer = AnomalyResultWriter(folder, catalogue, network, outputs="default,pm,sc", overwrite=True)
    engine = Engine(lambda _, batch: [batch])
    writer.attach(engine)
    engine.run([{**scaled, **{key: value[0] for key, value in scored.items()}}])
    return list(writer.failed.values())


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"This system does not tell {field}.")
