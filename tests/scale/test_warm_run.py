# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip import predict
from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun
from monai_anomalyclip.writers import OutputFolder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, untuned_bundle: Callable[..., Path]) -> RunOptions:
    bundle = untuned_bundle(tmp_path_factory.mktemp("warm") / "bundle")
    return RunOptions(bundle, ids={"device": "cpu", "keep_names": False, "deterministic_uids": True})


@pytest.fixture
def inputs(tmp_path: Path, phantoms: ModuleType) -> Path:
    folder = tmp_path / "in"
    phantoms.make_series(folder / "ct", count=3, size=(32, 40))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "b.png").write_text("no picture")
    return folder


def results(folder: Path) -> dict[str, bytes]:
    kinds = (".png", ".jpg", ".gz")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in kinds}


def test_one_network_for_many_works_and_the_results_of_predict(
    inputs: Path, tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = WarmRun(options)
    folder = OutputFolder(tmp_path / "out")

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("a second network was made")

    whole = InputCatalogue(inputs, options=run.reading)
    with monkeypatch.context() as patch:
        patch.setattr(AnomalyCLIP, "__init__", forbidden)
        made = run.made_with(folder)
        done = [run(whole.only([name]), folder) for name in whole.sources]
        again = run(whole, folder)
    assert sorted(name for one in done for name in one.written) == sorted(
        name for name in whole.sources if name not in done[-1].failed and not any(name in one.failed for one in done)
    )
    (bad,) = {name for one in done for name in one.failed}
    assert (again.written, list(again.failed), again.passing) == ((), [bad], frozenset())
    assert not (folder.path / "results.json").exists()
    document = predict(inputs, tmp_path / "whole", options.bundle, **options.ids)
    assert results(folder.path) == results(tmp_path / "whole")
    assert document.model == made.model
    folder.summarise()
    assert (folder.path / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()


def test_inputs_that_are_failed_without_being_read(inputs: Path, tmp_path: Path, options: RunOptions) -> None:
    run, folder = WarmRun(options), OutputFolder(tmp_path / "out")
    catalogue = InputCatalogue(inputs, options=run.reading)
    done = run.fail(catalogue, folder, "Its worker was lost twice.")
    assert done.failed == dict.fromkeys(catalogue.sources, "Its worker was lost twice.")
    for name in catalogue.sources:
        state = folder.state(name)
        assert state is not None
        assert (state.state, state.record and state.record.reason) == ("failed", "Its worker was lost twice.")
