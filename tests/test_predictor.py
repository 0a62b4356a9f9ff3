# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import threading
from pathlib import Path
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
from monai_anomalyclip.demo.phantom_sets import make_clip, write_mp4
from monai_anomalyclip.transforms import CLIPPreprocess


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_the_face_is_lazy_and_complete() -> None:
    for name in ("predict", "Predictor", "AnomalyCLIP", "load_input", "__version__"):
        assert name in dir(monai_anomalyclip)
        assert getattr(monai_anomalyclip, name) is not None


def test_every_road_gives_the_same_score(
    predictor: Predictor, face_bundle: Path, noise_picture: Path, tmp_path: Path
) -> None:
    image = Image.open(noise_picture)
    wanted = predictor(noise_picture)
    document = predict(noise_picture, tmp_path / "by_function", face_bundle, device="cpu", precision="float32")
    workflow = ConfigWorkflow(
        str(face_bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(face_bundle),
        dataset_dir=str(noise_picture),
        output_dir=str(tmp_path / "by_bundle"),
        device="cpu",
    )
    workflow.initialize()
    workflow.run()
    for folder in ("by_function", "by_bundle"):
        (record,) = json.loads((tmp_path / folder / "results.json").read_text())["inputs"]
        assert record["anomaly_score"] == pytest.approx(wanted.anomaly_score, abs=5e-7)  # stored with 6 digits
    assert document.inputs[0].anomaly_score == pytest.approx(wanted.anomaly_score, abs=5e-7)
    with torch.inference_mode():
        by_hand = predictor.network.predict(CLIPPreprocess(predictor.inferer.image_size)(image)[None])  # type: ignore
    assert by_hand["anomaly_score"].item() == wanted.anomaly_score
    array = np.asarray(image)
    others = (image, array, torch.from_numpy(array).permute(2, 0, 1), array / np.float32(255))
    for other in others:
        prediction = predictor(other)
        assert same(prediction.map, wanted.map)
        assert same(prediction.scores, wanted.scores)


def test_pictures_come_back_as_they_were_given(predictor: Predictor, noise_picture: Path) -> None:
    array = np.asarray(Image.open(noise_picture))
    size = array.shape[:2]
    assert predictor(array).anomaly_map.shape == size
    assert predictor(Image.fromarray(array)).anomaly_map.shape == size
    assert predictor(array[..., 0]).anomaly_map.shape == size
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert type(predictor(tensor).anomaly_map) is torch.Tensor
    assert predictor(tensor).anomaly_map.shape == (1, *size)
    assert predictor(tensor[0]).anomaly_map.shape == size
    by_path = predictor(noise_picture)
    assert isinstance(by_path.anomaly_map, MetaTensor)
    assert by_path.geometry.verdict == "picture"
    mask = predictor(array).mask(0.0)
    assert mask.dtype == bool
    assert mask.all()


def test_volumes_keep_their_geometry(predictor: Predictor, nifti_volume: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    source = nib.load(nifti_volume)  # type: ignore[attr-defined]
    wanted = predictor(nifti_volume)
    assert wanted.geometry.verdict == "regular"
    assert same(wanted.geometry.affine, source.affine)
    image = predictor(source).anomaly_map
    assert isinstance(image, nib.Nifti1Image)
    assert same(image.affine, source.affine)
    assert same(image.dataobj, wanted.map[0])
    given = sitk.ReadImage(str(nifti_volume))
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


def test_dicom_datasets_and_their_folder_agree(predictor: Predictor, ct_study: Path) -> None:
    by_path = predictor(ct_study)
    datasets = [pydicom.dcmread(path) for path in sorted(ct_study.iterdir())]
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


def test_threads_get_what_one_gets(predictor: Predictor, noise_picture: Path, nifti_volume: Path) -> None:
    wanted = {path: predictor(path).map for path in (noise_picture, nifti_volume)}
    found: list[bool] = []

    def work(path: Path) -> None:
        found.extend(same(predictor(path).map, wanted[path]) for _ in range(3))

    threads = [threading.Thread(target=work, args=(path,)) for path in wanted for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12


def test_each_names_all_inputs(predictor: Predictor, noise_picture: Path, nifti_volume: Path, tmp_path: Path) -> None:
    for path in (noise_picture, nifti_volume):
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
        (torch.full((3, 8, 8), 7.0), ValueError, "Colours must be"),
        (torch.zeros(2, 8, 8), ValueError, "put the channel first"),
        ({"image": 1}, TypeError, "A dict is no image"),
        ([], TypeError, "A list is no image"),
        ("no_such_file.png", ValueError, "no_such_file"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        predictor(image)


def test_a_preset_is_obeyed_or_refused(predictor: Predictor, ct_study: Path) -> None:
    wide, narrow = (predictor(ct_study, preset=name).image for name in ("ct-bone", "ct-brain"))
    assert not same(wide, narrow)
    with pytest.raises(ValueError, match="no intensity preset 'ct-brian'"):
        predictor(ct_study, preset="ct-brian")
    with pytest.raises(TypeError, match="colour"):
        predictor(ct_study, colour="red")


def test_a_bundle_by_its_shipped_name_or_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bundle at 'anomalyclop'"):
        Predictor("anomalyclop")
    folder = tmp_path / "own"
    copy_bundle("anomalyclip_demo", folder)
    with pytest.raises(FileNotFoundError, match=r"model\.pt"):
        Predictor(folder)


def test_the_device_is_given_back(face_bundle: Path, noise_picture: Path) -> None:
    with Predictor(face_bundle, device="cpu") as predictor:
        first = predictor(noise_picture).anomaly_score
    assert predictor.device == torch.device("cpu")
    assert predictor(noise_picture).anomaly_score == first


def test_an_accelerator_computes_the_same(
    face_bundle: Path, predictor: Predictor, noise_picture: Path, nifti_volume: Path, accelerator: str
) -> None:
    with Predictor(face_bundle, device=accelerator, precision="float32") as there:
        for path in (noise_picture, nifti_volume):
            expected, actual = predictor(path), there(path)
            np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-3)
            np.testing.assert_allclose(actual.map.numpy(), expected.map.numpy(), atol=2e-3)


def test_a_film_is_scored_frame_by_frame(predictor: Predictor, tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames, _ = make_clip(0, frames=6, size=64)
    prediction = predictor(write_mp4(tmp_path / "film.mp4", frames), stride=2)
    assert len(prediction.scores) == prediction.map.shape[-1] == 3
    with pytest.raises(ValueError, match=r"monai_anomalyclip\.predict"):
        prediction.save(tmp_path)


def test_a_film_that_is_read_in_parts_is_one_prediction(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    frames, _ = make_clip(0, frames=5, size=64)
    film = write_mp4(tmp_path / "film.mp4", frames)
    whole = predictor(film)
    monkeypatch.setattr("monai_anomalyclip.data.sources._MAX_PART", 2)
    parts = predictor(film)
    assert parts.image.shape == whole.image.shape
    assert same(parts.image, whole.image)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(parts.margins, whole.margins, rtol=0, atol=1e-5)
    np.testing.assert_allclose(parts.map.numpy(), whole.map.numpy(), rtol=0, atol=1e-6)


def test_what_calibrating_cannot_do(face_bundle: Path, tmp_path: Path) -> None:
    """Nothing that can be read, and a method without prompts to keep it beside."""
    (tmp_path / "a.png").write_text("no picture")
    with Predictor(face_bundle, device="cpu") as predictor:
        with pytest.raises(ValueError, match=r"None of the 1 normal inputs could be read: \{'frame_\w+': "):
            predictor.calibrate_on(tmp_path / "a.png")
        predictor.prompts = None
        with pytest.raises(ValueError, match="keeps its result beside the prompts, and this method has none"):
            predictor.calibrate_on(tmp_path / "a.png")
    assert not list((face_bundle / "models").glob("*.normals.json"))
