# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_anomalyclip.experiments.reproduce.reproduce_table import reproduce_table
from monai_anomalyclip.experiments.reproduce.runner import Outcome, TableRun
from monai_anomalyclip.networks import AnomalyCLIP

REPOSITORY = Path(__file__).parents[3]


def quiet(line: str) -> None:
    """Takes a line on the progress."""


def test_table_of_the_paper_from_three_data_sets(thin: Path, data: Path, tmp_path: Path) -> None:
    """Methods that learn nothing on two of ten sets, with the classes' words."""
    document, outcome = reproduce_table(
        "2", data, tmp_path, methods=["clip", "winclip"], further=[thin], max_epochs=1, say=quiet
    )
    assert set(outcome.scores) == {
        (f"untuned/{method}", name) for method in ("clip", "winclip") for name in ("cvc-clinicdb", "headct")
    }
    assert not outcome.failed
    assert json.loads((tmp_path / "table-2.json").read_text()) == document
    (group,) = document["groups"]
    (clinic,) = (row for row in group["rows"] if (row["method"], row["tested_on"]) == ("winclip", "cvc-clinicdb"))
    assert clinic["metrics"]["pixel_auroc"]["paper"] == 51.2
    assert "image_auroc" not in clinic["metrics"]
    text = (tmp_path / "table-2.md").read_text()
    assert "- not run: tn3k: there is no datalist tn3k.json" in text
    assert "The paper has 0 normal and 612 anomalous images of CVC-ClinicDB, here are 0 and 4" in text
    noted = json.loads((tmp_path / "runs/untuned/winclip/headct/result.json").read_text())
    assert noted["settings"]["class words"] == {"brain": "brain"}
    assert str(tmp_path) not in (tmp_path / "table-2.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "27"}, "There is no table '27': choose one of 1, 2, 3"),
        ({"methods": ["padim"]}, "There is no method 'padim'"),
        ({"seeds": 0}, "at least one seed and one epoch, got 0"),
        ({"max_epochs": 0}, "at least one seed and one epoch, got 1 and 0"),
        ({"data": None}, "Give the folder of the data sets"),
    ],
)
def test_wrong_use_is_told(arguments: dict[str, object], sentence: str, data: Path, tmp_path: Path) -> None:
    given = {"name": "2", "data": data, "output": tmp_path, **arguments}
    with pytest.raises(ValueError, match=sentence):
        reproduce_table(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [True, False])
def test_features_are_kept_where_it_is_asked_for(
    kept: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def run(self: TableRun) -> Outcome:
        asked.append(self.table.keep_features)
        self.runs.cache_dir.mkdir()
        (self.runs.cache_dir / "image.pt").touch()
        return Outcome()

    monkeypatch.setattr(TableRun, "run", run)
    reproduce_table("2", data, tmp_path, keep_features=kept, say=quiet)
    assert asked == [kept]
    assert (tmp_path / "features" / "image.pt").exists() is kept
    assert not (tmp_path / "temporary_features").exists()


def test_phantoms_of_the_demonstration_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def write(folder: Path, *, progress: bool) -> None:
        made.append(folder)
        folder.mkdir(parents=True)
        (folder / "datalist.json").write_text(json.dumps({"training": [], "testing": []}))

    monkeypatch.setattr("monai_anomalyclip.experiments.reproduce.reproduce_table.write_datalist", write)
    monkeypatch.setattr(TableRun, "run", lambda _: Outcome())
    for _ in range(2):
        reproduce_table("demo", tmp_path / "phantoms", tmp_path / "out", say=quiet)
    assert made == [tmp_path / "phantoms"]


def test_check_of_the_bundles_prompts(thin: Path, thin_weights: Path, data: Path, tmp_path: Path) -> None:
    """The first hour: the bundle's own prompts on the test sets that are there, and a verdict for each figure."""
    bundle = tmp_path / "anomalyclip_ready"
    shutil.copytree(REPOSITORY / "bundles" / "anomalyclip" / "configs", bundle / "configs")
    (bundle / "models").mkdir()
    document, outcome = reproduce_table("check", data, tmp_path / "a", bundle=bundle, further=[thin], say=len)
    assert outcome.scores == {}
    assert any("weights bundle -o" in problem["reason"] for problem in document["not_run"])
    settings = json.loads(thin.read_text())["backbone"]
    AnomalyCLIP(**settings, deep_prompt_depth=9).save_prompts(bundle / "models" / "model.pt")
    quick = tmp_path / "quick.json"
    kept = [
        handler
        for handler in json.loads((bundle / "configs" / "evaluate.json").read_text())["validate#handlers"]
        if handler["_target_"].endswith("BootstrapIntervals")
    ]
    quick.write_text(json.dumps({"validate#handlers": kept, "bootstrap": 50}))
    document, _ = reproduce_table("check", data, tmp_path / "b", bundle=bundle, further=[thin, quick], say=len)
    rows = {row["tested_on"]: row["metrics"] for group in document["groups"] for row in group["rows"]}
    clinic = rows["cvc-clinicdb"]
    assert clinic["pixel_auroc"]["paper"] == 82.9  # table 2
    for value in (clinic["pixel_auroc"], clinic["pixel_aupro_200"], rows["headct"]["image_auroc"]):
        low, high = value["interval"]
        assert low <= value["mean"] <= high
        inside = low <= value["paper"] <= high
        assert value["verdict"] == (
            "equal" if abs(value["difference"]) <= 0.15 else "within the spread" if inside else "differs"
        )
    assert rows["headct"]["image_auroc"]["paper"] == 93.4
    assert "verdict" in (tmp_path / "b" / "check.md").read_text()
    assert "not_run" in document
    assert any("isic" in row for problem in document["not_run"] for row in problem["rows"])


def test_full_shot_methods_on_a_datalist_of_the_users(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, Path]] = []

    class Results:
        def metrics(self) -> dict[str, float]:
            return {"image_auroc": 0.75}

    def full_shot(method: str, datalist: Path, folder: Path, **settings: object) -> Results:
        given.append((method, datalist))
        return Results()

    monkeypatch.setattr("monai_anomalyclip.experiments.fullshot.run_full_shot", full_shot)
    document, _ = reproduce_table("own", data, tmp_path / "a", say=quiet)
    assert all("there is no datalist own.json" in problem["reason"] for problem in document["not_run"])
    assert given == []

    own = tmp_path / "data"
    shutil.copytree(data, own)
    entries = json.loads((own / "headct.json").read_text())["testing"]
    normal = [entry for entry in entries if not entry["image_label"]]
    (own / "own.json").write_text(json.dumps({"training": normal[:1], "testing": entries[1:]}))
    (own / "weights").mkdir()
    (own / "weights/wide_resnet50_2.pth").touch()
    document, outcome = reproduce_table("own", own, tmp_path / "b", say=quiet)
    assert given == [(method, own / "own.json") for method in ("patchcore", "rd4ad", "own-normals")]
    assert outcome.scores["untuned/rd4ad", "own"] == {111: {"image_auroc": 0.75}}
    assert [row["metrics"]["image_auroc"]["mean"] for row in document["groups"][0]["rows"]] == [75, 75, 75]
    assert "75.0" in (tmp_path / "b" / "own.md").read_text()
