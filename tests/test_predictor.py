# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data.meta_tensor import MetaTensor
from PIL import Image

import monai_anomalyclip
from monai_anomalyclip import Predictor, predict
from monai_anomalyclip.bundles.shipped import copy_bundle
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.video import make_clip, write_mp4
from monai_anomalyclip.transforms import CLIPPreprocess


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    copy_bundle("anomalyclip_demo", folder)
    torch.manual_seed(0)
    demo_network(deep_prompt_depth=4).save_prompts(folder / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "frame.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((180, 120)).save(path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> Path:
    folder = tmp_path_factory.mktemp("study")
    phantoms.make_series(folder, count=4)
    return folder


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(1).normal(100, 20, (24, 30, 3)).astype(np.float32)
    affine = np.diag([-2.0, 1.5, 4.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    path = tmp_path_factory.mktemp("volume") / "volume.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)  # type: ignore[attr-defined]
    return path


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_the_face_is_lazy_and_complete() -> None:
    for name in ("predict", "Predictor", "AnomalyCLIP", "load_input", "__version__"):
        assert name in dir(monai_anomalyclip)
        assert getattr(monai_anomalyclip, name) is not None


def test_every_road_gives_the_same_score(predictor: Predictor, bundle: Path, picture: Path, tmp_path: Path) -> None:
    image = Image.open(picture)
    wanted = predictor(picture)
    document = predict(picture, tmp_path / "by_function", bundle, device="cpu", precision="float32")
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(picture),
        output_dir=str(tmp_path / "by_bundle"),
        device="cpu",
    )
    workflow.initialize()
    workflow.run()
    for folder in ("by_function", "by_bundle"):
        (record,) = json.loads((tmp_path / folder / "results.json").read_text())["inputs"]
        assert record["anomaly_score"] == pytest.approx(wanted.anomaly_score, abs=5e-7)  # stored with 6 digits
    assert document.inputs[0].anomaly_score == pytest.approx(wanted.anomaly_score, abs=5e-7)
    by_hand = predictor.network.predict(CLIPPreprocess(predictor.inferer.image_size)(image)[None])  # type: ignore
    assert by_hand["anomaly_score"].item() == wanted.anomaly_score
    array = np.asarray(image)
    others = (image, array, torch.from_numpy(array).permute(2, 0, 1), array / np.float32(255))
    for other in others:
        prediction = predictor(other)
        assert same(prediction.map, wanted.map)
        assert same(prediction.scores, wanted.scores)


def test_scores_are_the_logistic_function_of_the_margin(predictor: Predictor, picture: Path) -> None:
    prediction = predictor(picture)
    assert prediction.margins is not None
    assert prediction.scores == pytest.approx(1 / (1 + np.exp(-prediction.margins.astype(np.float64))), rel=1e-5)


def test_pictures_come_back_as_they_were_given(predictor: Predictor, picture: Path) -> None:
    array = np.asarray(Image.open(picture))
    size = array.shape[:2]
    assert predictor(array).anomaly_map.shape == size
    assert predictor(Image.fromarray(array)).anomaly_map.shape == size
    assert predictor(array[..., 0]).anomaly_map.shape == size
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert type(predictor(tensor).anomaly_map) is torch.Tensor
    assert predictor(tensor).anomaly_map.shape == (1, *size)
    assert predictor(tensor[0]).anomaly_map.shape == size
    by_path = predictor(picture)
    assert isinstance(by_path.anomaly_map, MetaTensor)
    assert by_path.geometry.verdict == "picture"
    mask = predictor(array).mask(0.0)
    assert mask.dtype == bool
    assert mask.all()


def test_volumes_keep_their_geometry(predictor: Predictor, volume: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    source = nib.load(volume)  # type: ignore[attr-defined]
    wanted = predictor(volume)
    assert wanted.geometry.verdict == "regular"
    assert same(wanted.geometry.affine, source.affine)
    image = predictor(source).anomaly_map
    assert isinstance(image, nib.Nifti1Image)
    assert same(image.affine, source.affine)
    assert same(image.dataobj, wanted.map[0])
    given = sitk.ReadImage(str(volume))
    result = predictor(given).anomaly_map
    assert (result.GetSpacing(), result.GetOrigin()) == (given.GetSpacing(), given.GetOrigin())
    assert result.GetDirection() == given.GetDirection()
    assert np.abs(sitk.GetArrayFromImage(result).T - np.asarray(wanted.map[0])).max() < 1e-5
    tensor = MetaTensor(torch.from_numpy(source.get_fdata(dtype=np.float32))[None], affine=source.affine)
    assert same(predictor(tensor).map, wanted.map)
    assert same(predictor(tensor).anomaly_map.affine, source.affine)
    nifti = wanted.to_nifti()
    assert np.allclose(nifti.affine, source.affine)
    assert same(nifti.dataobj, wanted.map[0])


def test_dicom_datasets_and_their_folder_agree(predictor: Predictor, study: Path) -> None:
    by_path = predictor(study)
    datasets = [pydicom.dcmread(path) for path in sorted(study.iterdir())]
    by_datasets = predictor(datasets[::-1])
    assert same(by_path.map, by_datasets.map)
    assert by_path.geometry.verdict == by_datasets.geometry.verdict == "regular"
    segmentation = by_datasets.to_dicom_seg(threshold=0.0)
    assert segmentation.SegmentationType == "BINARY"
    referenced = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} == {one.SOPInstanceUID for one in datasets}
    one = predictor(datasets[0])
    assert one.map.shape[-1] == 1
    assert same(one.scores[0], by_path.scores[[d.SOPInstanceUID for d in datasets].index(datasets[0].SOPInstanceUID)])


def test_files_are_written_on_request_only(
    predictor: Predictor, study: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prediction, frame = predictor(study), predictor(np.asarray(Image.open(picture)))
    assert not list(tmp_path.iterdir())
    names = sorted(path.name for path in prediction.save(tmp_path / "out", name="a"))
    assert names == ["a_map.nii.gz", "a_mask.nii.gz", "a_overlay.png", "a_seg.dcm", "a_sr.dcm"]
    written = nib.load(tmp_path / "out" / "a_map.nii.gz")  # type: ignore[attr-defined]
    assert same(written.dataobj, prediction.map[0])
    assert {path.name for path in frame.save(tmp_path / "out", name="b")} >= {"b_heat.png", "b_mask.png"}
    before = (tmp_path / "out" / "a_map.nii.gz").read_bytes()
    with pytest.raises(FileExistsError, match="a_map"):
        prediction.save(tmp_path / "out", name="a")
    assert (tmp_path / "out" / "a_map.nii.gz").read_bytes() == before


def test_pictures_for_people(predictor: Predictor, study: Path, picture: Path) -> None:
    prediction = predictor(study)
    assert prediction.overlay(0).size == predictor(study).image.shape[1:3]
    with pytest.raises(IndexError, match="0 to 3"):
        prediction.overlay(4)
    assert prediction._repr_png_().startswith(b"\x89PNG")
    page = predictor(picture)._repr_html_()
    assert "anomaly score" in page
    assert "Research use only" in page
    assert str(picture) not in page


def test_threads_get_what_one_gets(predictor: Predictor, picture: Path, volume: Path) -> None:
    wanted = {path: predictor(path).map for path in (picture, volume)}
    found: list[bool] = []

    def work(path: Path) -> None:
        found.extend(same(predictor(path).map, wanted[path]) for _ in range(3))

    threads = [threading.Thread(target=work, args=(path,)) for path in wanted for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12


def test_each_names_all_inputs(predictor: Predictor, picture: Path, volume: Path, tmp_path: Path) -> None:
    for path in (picture, volume):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = dict(predictor.each(tmp_path))
    assert len(found) == 2
    assert sorted(len(prediction.scores) for prediction in found.values()) == [1, 3]
    with pytest.raises(ValueError, match="holds 2 inputs"):
        predictor(tmp_path)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((2, 3, 4, 5)), ValueError, "neither a picture"),
        (np.full((8, 8, 3), 7.0), ValueError, "Colours must be"),
        (torch.zeros(2, 8, 8), ValueError, "put the channel first"),
        ({"image": 1}, TypeError, "A dict is no image"),
        ([], TypeError, "A list is no image"),
        ("no_such_file.png", ValueError, "no_such_file"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        predictor(image)


def test_a_preset_is_obeyed_or_refused(predictor: Predictor, study: Path) -> None:
    wide, narrow = (predictor(study, preset=name).image for name in ("ct-bone", "ct-brain"))
    assert not same(wide, narrow)
    with pytest.raises(ValueError, match="no intensity preset 'ct-brian'"):
        predictor(study, preset="ct-brian")
    with pytest.raises(TypeError, match="colour"):
        predictor(study, colour="red")


def test_a_bundle_by_its_shipped_name_or_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bundle at 'anomalyclop'"):
        Predictor("anomalyclop")
    folder = tmp_path / "own"
    copy_bundle("anomalyclip_demo", folder)
    with pytest.raises(FileNotFoundError, match=r"model\.pt"):
        Predictor(folder)


def test_the_device_is_given_back(bundle: Path, picture: Path) -> None:
    with Predictor(bundle, device="cpu") as predictor:
        first = predictor(picture).anomaly_score
    assert predictor.device == torch.device("cpu")
    assert predictor(picture).anomaly_score == first


def test_a_film_is_scored_frame_by_frame(predictor: Predictor, tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames, _ = make_clip(0, frames=6, size=64)
    prediction = predictor(write_mp4(tmp_path / "film.mp4", frames), stride=2)
    assert len(prediction.scores) == prediction.map.shape[-1] == 3
    with pytest.raises(ValueError, match=r"monai_anomalyclip\.predict"):
        prediction.save(tmp_path)
