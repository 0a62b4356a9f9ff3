# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli import main
from monai_anomalyclip.networks import read_prompts

pytest.importorskip("nvflare", reason="NVFlare is not installed (extra federated)")


@pytest.fixture
def bundle(copy_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return copy_bundle(tmp_path / "bundles")


def test_job_is_written(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["federated", "job", "--sites", "3", "--bundle", str(bundle), "-o", str(tmp_path / "job")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "9216 bytes" in told
    assert RESEARCH_USE_ONLY in told
    assert (tmp_path / "job" / "anomalyclip" / "meta.json").is_file()
    assert read_prompts(tmp_path / "job" / "initial.pt").backbone
    assert main(words) == 1
    assert "exists" in capsys.readouterr().err


def test_simulation_gets_what_was_asked(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def simulate(sites: dict[str, Any], output: Path, **settings: Any) -> Path:
        asked.update(sites=sites, output=output, **settings)
        return output / "model.pt"

    monkeypatch.setattr("monai_anomalyclip.federated.simulate", simulate)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "datalist.json").write_text("{}")
    words = ["federated", "simulate", f"a={tmp_path}/a", f"b={tmp_path}/b", "-o", str(tmp_path / "out"), "--bundle"]
    assert main([*words, str(bundle), "--mu", "0.5", "--privacy", "gamma=0.001"]) == 0
    assert asked["mu"] == 0.5
    assert asked["privacy"] == {"gamma": 0.001}
    assert asked["sites"]["b"].dataset_dir == tmp_path / "b"
    assert asked["sites"]["a"].output_dir != asked["sites"]["b"].output_dir
    (tmp_path / "b" / "datalist.json").unlink()
    assert main([*words, str(bundle)]) == 1
    assert "Site b has no datalist.json" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "none")]) == 1
    assert "no bundle" in capsys.readouterr().err


@pytest.mark.parametrize("site", ["a", "a=", "=b", "a b=c"])
def test_sites_are_named(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["federated", "simulate", site, "-o", "x", "--bundle", "y"])
    assert "NAME=DIR" in capsys.readouterr().err


def test_what_is_no_number_and_a_name_given_twice(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["federated", "simulate", f"a={tmp_path}", f"a={tmp_path}", "-o", str(tmp_path / "out"), "--bundle"]
    with pytest.raises(SystemExit):
        main([*words, str(bundle), "--privacy", "gamma=small"])
    assert "'gamma=small' is no NAME=NUMBER" in capsys.readouterr().err
    assert main([*words, str(bundle)]) == 1
    assert "Each site needs a name of its own: a, a." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
