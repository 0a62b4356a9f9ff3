# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import data_sets
from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.reproduce.data_folders import (
    FOLDER_NAMES,
    DataFolder,
    NotFoundError,
    PhantomSource,
    of_class,
)


def names(datalist: Path, section: str) -> list[str]:
    return sorted(Path(entry["image"]).name for entry in load_datalist(datalist, section))


def test_folder_names_belong_to_data_sets() -> None:
    assert set(FOLDER_NAMES) <= set(data_sets())
    every = [name.casefold() for known in FOLDER_NAMES.values() for name in known]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("purpose", ["training", "testing"])
def test_original_layout_by_the_archives_name(purpose: str, data: Path, tmp_path: Path) -> None:
    found = DataFolder(data, tmp_path).find("mvtec", purpose)  # type: ignore[arg-type]
    assert (found.images, found.anomalous, found.classes) == (12, 6, ("bottle", "cable"))
    entries = load_datalist(found.datalist, purpose)
    assert {Path(entry["image"]).resolve().is_relative_to(data.resolve()) for entry in entries} == {True}
    assert sum("label" in entry for entry in entries) == 6
    assert any("The paper has 467 normal and 1258 anomalous images" in note for note in found.notes)


def test_datalist_before_folder(data: Path, tmp_path: Path) -> None:
    found = DataFolder(data, tmp_path).find("headct", "testing")
    assert (found.images, found.anomalous, found.classes) == (6, 3, ("brain",))
    assert names(found.datalist, "testing") == [f"{number}.png" for number in range(6)]


def test_datalist_within_the_folder(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "ct", tmp_path / "data" / "Brain MRI" / "ct")
    content = (data / "headct.json").read_text()
    (tmp_path / "data" / "Brain MRI" / "datalist.json").write_text(content)
    found = DataFolder(tmp_path / "data", tmp_path / "out").find("brainmri", "testing")
    assert found.images == 6


def test_tunes_on_the_list_that_holds_anomalies(data: Path, tmp_path: Path) -> None:
    """The published training parts are normal: there the paper's test part is tuned on."""
    entries = json.loads((data / "headct.json").read_text())["testing"]
    entries = [{**entry, "image": str(data / entry["image"])} for entry in entries]
    normal = [entry for entry in entries if entry["image_label"] == 0]
    source = DataFolder(tmp_path, tmp_path / "out")
    for content, expected in (
        ({"training": normal, "testing": entries[2:]}, 4),
        ({"training": entries, "testing": entries[2:]}, 6),
        ({"testing": entries[2:]}, 4),
    ):
        (tmp_path / "visa.json").write_text(json.dumps(content))
        assert source.find("visa", "training").images == expected
    (tmp_path / "visa.json").write_text(json.dumps({"training": entries}))
    assert source.find("visa", "testing").images == 6


def test_auxiliary_mix_of_its_two_parts(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "CVC-ClinicDB" / "Original", tmp_path / "CVC-ColonDB" / "images")
    shutil.copytree(data / "CVC-ClinicDB" / "Ground Truth", tmp_path / "CVC-ColonDB" / "masks")
    shutil.copytree(data / "ct", tmp_path / "Endo classification" / "normal")
    found = DataFolder(tmp_path, tmp_path / "out").find("colondb-endo", "training")
    assert (found.images, found.anomalous) == (10, 4)


def test_what_is_missing_is_said(data: Path, tmp_path: Path) -> None:
    source = DataFolder(data, tmp_path)
    with pytest.raises(NotFoundError, match=r"no datalist btad\.json and no folder of the names btad, BTech"):
        source.find("btad", "testing")
    with pytest.raises(NotFoundError, match=r"no prompts prompts/mvtec\.pt, \.safetensors or \.pth"):
        source.prompts("mvtec")
    with pytest.raises(NotADirectoryError, match="There is no folder"):
        DataFolder(tmp_path / "absent", tmp_path)
    (tmp_path / "data" / "Kvasir").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="is not laid out as Kvasir"):
        DataFolder(tmp_path / "data", tmp_path).find("kvasir", "testing")
    with pytest.raises(NotFoundError, match=r"kvasir: .*is not laid out as Kvasir"):
        DataFolder(tmp_path / "data", tmp_path).original("kvasir")
    assert not (tmp_path / "kvasir-original.json").exists()


def test_given_prompts(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "visa.pth").touch()
    assert DataFolder(tmp_path, tmp_path / "out").prompts("visa") == tmp_path / "prompts" / "visa.pth"


def test_written_list_is_kept_until_the_data_move(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "CVC-ClinicDB", tmp_path / "data" / "ClinicDB")
    source = DataFolder(tmp_path / "data", tmp_path / "out")
    first = source.find("cvc-clinicdb", "testing")
    time = first.datalist.stat().st_mtime_ns
    again = source.find("cvc-clinicdb", "testing")
    assert again == first
    assert again.datalist.stat().st_mtime_ns == time
    (tmp_path / "data" / "ClinicDB" / "Original" / "0.png").unlink()
    assert source.find("cvc-clinicdb", "testing").images == 3


def test_phantoms_by_family(tmp_path: Path) -> None:
    datalist = write_datalist(tmp_path / "phantoms", training=8, validation=4, testing=16, size=32, progress=False)
    source = PhantomSource(datalist, tmp_path / "out")
    tuning, head = source.find("industrial-phantoms", "training"), source.find("head_ct", "testing")
    assert (tuning.images, head.images, head.anomalous) == (8, 4, 2)
    assert {entry["class"] for entry in load_datalist(head.datalist, "testing")} == {"head_ct"}
    with pytest.raises(NotFoundError):
        source.prompts("industrial-phantoms")


def test_images_of_one_class(data: Path, tmp_path: Path) -> None:
    found = DataFolder(data, tmp_path).find("mvtec", "testing")
    for name in ("bottle", "cable"):
        part = of_class(found, name)
        assert (part.images, part.anomalous, part.classes) == (6, 3, (name,))
        entries = load_datalist(part.datalist, "testing")
        assert all(f"/{name}/" in entry["image"] and Path(entry["image"]).is_file() for entry in entries)
    assert names(found.datalist, "testing") == sorted(
        entry for name in ("bottle", "cable") for entry in names(of_class(found, name).datalist, "testing")
    )


def test_published_parts(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    source = DataFolder(tmp_path / "data", tmp_path / "out")
    with pytest.raises(NotFoundError, match=r"visa: there is no folder of it, and no datalist visa\.json"):
        source.original("visa")
    for product in ("bottle", "cable"):
        good = tmp_path / "data/mvtec_anomaly_detection" / product / "train/good"
        shutil.copytree(good.parents[1] / "test/good", good)
    for _ in range(2):  # a second time the list is made anew
        datalist = source.original("mvtec")
        assert len(load_datalist(datalist, "training")) == 6
        assert len(load_datalist(datalist, "testing")) == 12
    # A datalist of one's own goes before the folder when it has both parts.
    own = json.loads((data / "headct.json").read_text())
    (tmp_path / "data/mvtec.json").write_text(json.dumps(own))
    assert source.original("mvtec") == datalist
    (tmp_path / "data/mvtec.json").write_text(json.dumps({**own, "training": own["testing"][:1]}))
    assert source.original("mvtec") == tmp_path / "data/mvtec.json"


def test_image_net_weights(data: Path, tmp_path: Path) -> None:
    source = DataFolder(tmp_path, tmp_path / "out")
    with pytest.raises(NotFoundError, match=r"no ImageNet weights weights/wide_resnet50_2\*\.pth"):
        source.image_net_weights()
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "wide_resnet50_2.safetensors"
    file.touch()
    assert source.image_net_weights() == file


def test_phantoms_have_neither_published_parts_nor_weights(tmp_path: Path) -> None:
    source = PhantomSource(tmp_path / "datalist.json", tmp_path)
    with pytest.raises(NotFoundError, match="brain_mr: phantoms have no published parts"):
        source.original("brain_mr")
    with pytest.raises(NotFoundError, match="no ImageNet weights"):
        source.image_net_weights()
