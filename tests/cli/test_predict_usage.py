# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import pytest

from monai_anomalyclip.cli import main
from tests.cli.predict_results import rows_of

Predict = Callable[..., int]


def test_an_unknown_series_is_one_sentence(study: Path, predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(study, "--series", "1.2.3") == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: Series 1.2.3 is not among the 4 series")


def test_what_keeps_a_run_from_beginning(
    picture: Path, predict: Predict, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> str:
        assert main(["predict", *arguments]) == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        return last

    out = ["-o", str(tmp_path / "out")]
    bundle = ["--bundle", str(Path(__file__).parents[2] / "bundles" / "anomalyclip_demo")]
    assert "There is no bundle at" in error(str(picture), *out, "--bundle", str(tmp_path))
    assert "There are no prompts at" in error(str(picture), *out, *bundle, "--prompts", str(tmp_path / "x.pt"))
    assert "Cannot write to the output folder" in error(
        str(picture), "-o", "/proc/out", *bundle, "--prompts", str(prompts)
    )
    capsys.readouterr()
    assert predict(tmp_path / "absent") == 1
    assert "does not exist: give a file or a folder" in capsys.readouterr().err
    assert predict(picture, out=picture) == 1
    assert "Results cannot go into the input folder" in capsys.readouterr().err
    assert predict(picture, "--preset", "ct-brian") == 1
    assert "There is no intensity preset 'ct-brian'" in capsys.readouterr().err
    assert predict(picture, "--threshold", "nan") == 1
    assert "threshold must lie in [0, 1], got nan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "in"],
        ["predict", "in", "-o", "out", "--outputs", "jpeg"],
        ["predict", "in", "-o", "out", "--resume", "--force"],
        ["predict", "in", "-o", "out", "--slice-axis", "3"],
        ["predict", "in", "-o", "out", "--preset", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--preset", "@device"],
        ["predict", "in", "-o", "out", "--series", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--device", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--device", "%bundle_root"],
        ["predict", "in", "-o", "out", "--outputs", "$__import__('os').mkdir('pwned')"],
        ["predict", "in", "-o", "out", "--threshold", "$1"],
        ["predict", "in", "-o", "out", "--nifti-form", "$1"],
        ["predict", "in", "-o", "out", "--scales", "1,big"],
        ["predict", "in", "-o", "out", "--false-positive-rate", "1"],
    ],
)
def test_wrong_usage_is_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["$__import__('os').mkdir('pwned')", "@device", "%bundle_root", "a@#b", "#1 [x]", "ü'\"\\n"]
)
def test_paths_that_look_like_expressions_are_paths(
    name: str, picture: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI evaluates texts that begin with $, @ or %, and replaces # wherever it stands."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    picture.rename(name)
    Path(f"{name}.pt").write_bytes(Path(options[options.index("--prompts") + 1]).read_bytes())
    assert main(["predict", name, *options, "-o", f"{name}.out", "--prompts", f"{name}.pt"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == sorted([name, f"{name}.out", f"{name}.pt"])
    assert [row["status"] for row in rows_of(Path(f"{name}.out"))] == ["ok"]


def test_every_option_reaches_the_bundle_and_no_other(
    picture: Path, tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(RuntimeError):
        pass

    seen: dict[str, Any] = {}

    def workflow(config: list[str], **overrides: Any) -> None:
        seen.update(overrides, config=config)
        raise Stopped("stopped")

    def paths(literal: str) -> Any:
        return ast.literal_eval(literal.removeprefix("$"))

    monkeypatch.setattr(monai.bundle, "ConfigWorkflow", workflow)
    fixed = {"config", "workflow_type", "logging_file", "bundle_root", "dataset_dir", "output_dir"}
    bundle = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"
    common = ["predict", str(picture), "-o", str(tmp_path / "out"), "--bundle", str(bundle)]
    assert main(common) == 1
    assert set(seen) == fixed  # the bundle's own settings hold for the rest
    assert [paths(literal) for literal in seen["dataset_dir"]] == [str(picture)]
    assert paths(seen["output_dir"]) == str(tmp_path / "out")
    assert seen["config"] == [str(bundle / "configs" / "inference.json")]
    seen.clear()
    overlay = tmp_path / "overlay.json"
    assert main([
        *common, "--prompts", str(prompts), "--threshold", "0", "--outputs", "sc,default", "--slice-batch-size", "3",
        "--device", "cuda:1", "--sheared-nifti", "--deterministic-uids", "--force", "--series", "1.2", "--series", "3",
        "--include", "secondary-capture", "--exclude", "*scout*",
        "--keep-names", "--slice-axis", "0", "--preset", "dicom", "--nifti-form", "qform", "--time-point", "0",
        "--stride", "5", "--precision", "bfloat16", "--compile", "--scales", "1,0.5",
        "--workers", "auto", "--config", str(overlay), "--verbose",
    ]) == 1  # fmt: skip
    assert seen.pop("config") == [str(bundle / "configs" / "inference.json"), str(overlay)]
    assert paths(seen.pop("prompts")) == str(prompts)
    assert {key: value for key, value in seen.items() if key not in fixed} == {
        "threshold": 0.0,
        "outputs": ["nifti", "seg", "sr", "png", "sc"],
        "slice_batch_size": 3,
        "workers": "auto",
        "scales": [1.0, 0.5],
        "precision": "bfloat16",
        "compile": True,
        "device": "cuda:1",
        "sheared_nifti": True,
        "deterministic_uids": True,
        "overwrite": True,
        "series": ["1.2", "3"],
        "include": ["secondary-capture"],
        "exclude_patterns": ["*scout*"],
        "keep_names": True,
        "slice_axis": 0,
        "reading#preset": "dicom",
        "reading#nifti_form": "qform",
        "reading#time_point": 0,
        "reading#stride": 5,
    }
    ids = set(json.loads((bundle / "configs" / "inference.json").read_text()))
    assert {key.partition("#")[0] for key in seen if key not in ("workflow_type", "logging_file")} <= ids
    assert main([*common, "--false-positive-rate", "0.05"]) == 1
    assert seen["false_positive_rate"] == 0.05  # of the bundle of one's own normals


@pytest.mark.parametrize("workers", ["-1", "1.5", "257", "1" + "0" * 22, "²"])
def test_a_number_of_workers_that_is_none(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["predict", "in", "-o", "out", f"--workers={workers}"])
    assert left.value.code == 2
    assert "0 to 256" in capsys.readouterr().err


@pytest.mark.parametrize("bundle", ["anomalyclip_demo", "anomalyclip"])
def test_shipped_bundles_and_their_copies_are_private(bundle: str, tmp_path: Path) -> None:
    assert main(["copy-bundle", bundle, str(tmp_path / "mine")]) == 0
    assert json.loads((tmp_path / "mine" / "configs" / "inference.json").read_text())["keep_names"] is False
