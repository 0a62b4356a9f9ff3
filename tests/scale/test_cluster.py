# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The real engine: a scheduler and workers on loopback."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from PIL import Image

from monai_anomalyclip import predict
from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.work_list import WorkUnit, units_of
from monai_anomalyclip.scale import cluster
from monai_anomalyclip.scale.cluster import ClusterDone, connected, predict_on_cluster, score_unit
from monai_anomalyclip.scale.warm_run import RunOptions, WorkDone
from monai_anomalyclip.writers import OutputFolder
from tests.conftest import environment


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, untuned_bundle: Callable[..., Path]) -> RunOptions:
    bundle = untuned_bundle(tmp_path_factory.mktemp("cluster") / "bundle")
    return RunOptions(bundle, ids={"device": "cpu", "keep_names": False})


def pictures(folder: Path, count: int) -> list[WorkUnit]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return units_of(InputCatalogue(folder).sources)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".png", ".jpg")}


def run_with_a_loss(count: int, workers: int, tmp_path: Path, options: RunOptions) -> None:
    units = pictures(tmp_path / "in", count)
    out = tmp_path / "out"
    killed: list[int] = []

    def kill(done: ClusterDone) -> None:
        if done.written >= count // 3 and not killed:
            children = psutil.Process().children(recursive=True)
            scoring = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            killed.append(scoring[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    with connected(f"local:{workers}") as client:
        addresses = list(client.scheduler_info(n_workers=-1)["workers"])
        assert len(addresses) == workers
        assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)
        done = predict_on_cluster(client, iter(units), out, options, kill)
    assert killed
    assert done.failed == 0
    # What the lost worker had finished but not told is left out when its input is begun again.
    assert count - 2 <= done.written <= count
    OutputFolder(out).summarise()
    assert json.loads((out / "results.json").read_text())["summary"]["ok"] == count
    predict(tmp_path / "in", tmp_path / "whole", options.bundle, **options.ids)
    assert results(out) == results(tmp_path / "whole")
    assert (out / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()


def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path, options: RunOptions) -> None:
    run_with_a_loss(12, 2, tmp_path, options)


@pytest.mark.nightly
def test_200_inputs_and_a_worker_that_is_killed(tmp_path: Path, options: RunOptions) -> None:
    run_with_a_loss(200, 3, tmp_path, options)


@pytest.mark.nightly
def test_tls(
    tmp_path: Path,
    options: RunOptions,
    certificates: Callable[[str], tuple[Path, Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As documented: a scheduler and a worker that Dask's own program starts, and a client with a certificate."""
    ca, cert, key = certificates("authority")
    units = pictures(tmp_path / "in", 2)
    address = f"tls://127.0.0.1:{(port := free_port())}"
    program = str(Path(sys.executable).with_name("dask"))
    files = ["--tls-ca-file", str(ca), "--tls-cert", str(cert), "--tls-key", str(key)]
    place = ["--protocol", "tls", "--host", "127.0.0.1", *files]
    with contextlib.ExitStack() as stack:
        for words in (
            ["scheduler", "--port", str(port), "--no-dashboard", *place],
            ["worker", address, "--nthreads", "1", "--no-dashboard", *place],
        ):
            process = stack.enter_context(subprocess.Popen([program, *words], cwd=tmp_path, env=environment()))
            stack.callback(process.terminate)
        with pytest.raises((OSError, TypeError, ValueError)), connected(address):
            pass
        for name, path in (("CA_FILE", ca), ("CLIENT__CERT", cert), ("CLIENT__KEY", key)):
            monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}", str(path))
        dask.config.refresh()
        stack.callback(dask.config.refresh)
        with connected(address) as client:
            client.wait_for_workers(1, timeout=600)
            done = predict_on_cluster(client, iter(units), tmp_path / "out", options)
    assert (done.written, done.failed) == (2, 0)


def test_an_input_that_kills_its_workers_is_recorded(tmp_path: Path, options: RunOptions) -> None:
    """Here, without a cluster: two tries that did not end are found on the disk, as killed workers leave them."""
    (unit,) = pictures(tmp_path / "in", 1)
    out = str(tmp_path / "out")
    tries = tmp_path / "out" / ".report" / "tries"
    tries.mkdir(parents=True)
    for number in range(2):
        (tries / f"token-{unit.group}-{number}").touch()
    done = score_unit(options, out, unit.to_json(), "token")
    (name,) = unit.names.values()
    assert done.failed == {name: "The worker that scored it was lost 2 times, perhaps because memory ran out."}
    state = OutputFolder(out).state(name)
    assert state is not None
    assert state.state == "failed"
    assert score_unit(options, out, unit.to_json(), "another run").written == (name,)
    assert not list(tries.glob("another*"))  # a try that ended is forgotten


def test_what_is_no_cluster() -> None:
    for where in ("local", "local:0", "local:-1", "http://x:1", "tcp://host", "tcp://a b:1"):
        with pytest.raises(ValueError, match=r"no cluster|at least one"), connected(where):
            pass


def test_stragglers() -> None:
    unit, other = (WorkUnit(f"{number:016x}", "frame", ("a",), {"0": "x"}) for number in (1, 2))
    long_ago = time.monotonic() - 1000
    late = cluster._Begun(unit, long_ago, 0)
    assert cluster._stragglers({1: late}, [1.0] * 4) == []  # too little is known
    assert cluster._stragglers({1: late, 2: cluster._Begun(other, time.monotonic(), 0)}, [1.0] * 5) == [late]
    assert cluster._stragglers({1: late, 2: cluster._Begun(unit, time.monotonic(), 1)}, [1.0] * 5) == []  # redone once
    assert cluster._stragglers({1: late}, [500.0] * 5) == []


@pytest.mark.nightly
def test_memory_of_the_client_is_flat(
    tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """5,000 inputs; the workers write nothing."""
    monkeypatch.setattr(cluster, "score_unit", _nothing)
    process, seen = psutil.Process(), []

    def note(done: ClusterDone) -> None:
        if done.written % 1000 == 0:
            gc.collect()
            seen.append(process.memory_info().rss / 2**20)

    units = (WorkUnit(f"{index:016x}", "frame", (f"{index}.png",), {"0": f"frame_{index}"}) for index in range(5000))
    with connected("local:2") as client:
        done = predict_on_cluster(client, units, tmp_path, options, note)
    assert done.written == 5000
    record_property("figure", f"client after each 1,000 inputs: {', '.join(f'{each:.0f}' for each in seen)} MiB")
    assert seen[-1] < seen[0] + 20


def _nothing(options: RunOptions, output: str, line: str, token: str) -> WorkDone:
    return WorkDone(tuple(WorkUnit.from_json(line).names.values()))
