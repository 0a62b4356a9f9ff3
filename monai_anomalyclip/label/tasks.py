# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label's clients can ask for: mask, nested labels, heat map, outlines, and tuning. All share one model."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from monai.config.type_definitions import NdarrayOrTensor
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.transform.writer import Writer
from monailabel.utils.others.generic import device_list, name_to_device

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data.input_files import is_picture
from monai_anomalyclip.label.model import AnomalyModel, Prediction
from monai_anomalyclip.label.polygons import mask_polygons
from monai_anomalyclip.label.prompt_tuning import tune_prompts
from monai_anomalyclip.label.reference_model import ReferenceModel
from monai_anomalyclip.transforms import ThresholdAnomalyMap
from monai_anomalyclip.transforms.annotation_answer import level_names, level_set_labels
from monai_anomalyclip.transforms.intensity_presets import PRESET_NAMES

__all__ = ["HeatMapTask", "LevelSetTask", "MaskTask", "PolygonTask", "PromptTuningTask", "single"]

_COLOURS = {"anomaly": (255, 0, 0)}

logger = logging.getLogger(__name__)


def single(value: Any) -> Any:
    """A request's option: clients that do not know it send the whole list of choices, of which the first holds."""
    return value[0] if isinstance(value, list | tuple) else value


class _AnomalyTask(InferTask):
    """Scores an image; a derived class says what is made of the anomaly map.

    The answer's params hold ``anomaly_score``, ``slice`` and ``prompts`` (see
    :class:`~monai_anomalyclip.label.model.Prediction`), ``label_names`` and ``latencies``.

    Args:
        model: shared by all tasks.
        description: shown by clients.
        labels: names and values.
        dimension: 2 or 3; viewers of volumes want 3.
        kind: viewers offer only segmentations.
        options: further options that clients show.

    Attributes:
        makes_file: whether the result is a file; else all of it is in the params.
    """

    makes_file = True

    def __init__(
        self,
        model: AnomalyModel | ReferenceModel,
        description: str,
        labels: dict[str, int],
        *,
        dimension: int = 3,
        kind: InferType = InferType.SEGMENTATION,
        options: dict[str, Any] | None = None,
    ) -> None:
        config = {"device": device_list(), "preset": list(PRESET_NAMES), **(options or {})}
        super().__init__(kind, labels, dimension, description, config)
        self.model = model

    def is_valid(self) -> bool:
        """Always: the app does not start without prompts, or a bank."""
        return True

    def get_path(self, validate: bool = True) -> str:
        """File of the prompts in use, or of the bank."""
        return str(self.model.prompts_path)

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Answer one request.

        Returns:
            path of the result file, None where the answer is all in the params, and the params.

        Raises:
            UnreadableInputError: the image cannot be read.
            ValueError: an option has no such value.
        """
        begun = time.perf_counter()
        options = {**self.config(), **request}
        prediction = self.model.predict(
            options["image"], preset=single(options["preset"]), device=name_to_device(options.get("device"))
        )
        inferred = time.perf_counter()
        params: dict[str, Any] = {
            "anomaly_score": prediction.anomaly_score,
            "slice": prediction.slice_index,
            "prompts": prediction.prompts,
        }
        if prediction.doubts:
            params |= {"p_value": prediction.p_value, "doubts": list(prediction.doubts)}
        file, more = self._result(prediction, options)
        params |= {**more, "label_names": self.labels}
        params["latencies"] = {
            "infer": round(inferred - begun, 2),
            "write": round(time.perf_counter() - inferred, 2),
            "total": round(time.perf_counter() - begun, 2),
        }
        return file, params

    @abstractmethod
    def _result(self, prediction: Prediction, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The result's file and what is added to the params."""


class MaskTask(_AnomalyTask):
    """The map from a threshold on, as one label."""

    def __init__(self, model: AnomalyModel | ReferenceModel) -> None:
        options = {"threshold": model.default_threshold}
        super().__init__(model, "Anomalies as one label", {"anomaly": 1}, options=options)

    def _result(self, prediction: Prediction, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        threshold = self.model.threshold(options["threshold"])
        mask = ThresholdAnomalyMap(threshold)(prediction.anomaly_map)
        return _write(mask, prediction, options, options.get("result_dtype") or "uint8"), {"threshold": threshold}


class LevelSetTask(_AnomalyTask):
    """Nested labels for several probabilities, for viewers that show labels but no map."""

    def __init__(self, model: AnomalyModel | ReferenceModel) -> None:
        super().__init__(model, "Anomaly map as nested labels", level_names())

    def _result(self, prediction: Prediction, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        labels = level_set_labels(prediction.anomaly_map)
        return _write(labels, prediction, options, options.get("result_dtype") or "uint8"), {}


class HeatMapTask(_AnomalyTask):
    """The map itself, float32 in [0, 1].

    Its type keeps viewers of labels from offering it: they ask for uint8, in which it would be zeros. For the same
    reason it is float32 whatever ``result_dtype`` says.
    """

    def __init__(self, model: AnomalyModel | ReferenceModel) -> None:
        super().__init__(model, "Anomaly map, float32 in [0, 1]", {"anomaly": 1}, kind=InferType.OTHERS)

    def _result(self, prediction: Prediction, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        return _write(prediction.anomaly_map, prediction, options, "float32"), {}


class PolygonTask(_AnomalyTask):
    """Outlines of the mask of a picture, in the form that MONAI Label's CVAT and pathology plugins read."""

    makes_file = False

    def __init__(self, model: AnomalyModel | ReferenceModel) -> None:
        options = {"threshold": model.default_threshold, "min_poly_area": 10}
        super().__init__(
            model, "Anomalies as polygons", {"anomaly": 1}, dimension=2, kind=InferType.OTHERS, options=options
        )

    def _result(self, prediction: Prediction, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        if prediction.anomaly_map.ndim != 3:
            raise ValueError("Polygons are made of pictures only; ask for the mask of a volume.")
        threshold = self.model.threshold(options["threshold"])
        mask = ThresholdAnomalyMap(threshold)(prediction.anomaly_map)
        contours = mask_polygons(np.asarray(mask)[0], min_area=float(single(options["min_poly_area"])))
        elements = [{"label": "anomaly", "contours": [[list(corner) for corner in contour]]} for contour in contours]
        annotation = {"location": [0, 0], "size": [0, 0], "elements": elements, "labels": _COLOURS}
        return None, {"threshold": threshold, "annotations": [{"annotation": annotation}]}


def _write(result: NdarrayOrTensor, prediction: Prediction, options: dict[str, Any], dtype: str) -> str:
    """Write (1, H, W) or (1, X, Y, Z) and return the file's name; the caller removes it.

    The suffix is the one asked for; else PNG for labels of pictures, which JPEG would blur, and compressed NIfTI.
    """
    picture = result.ndim == 3
    values: npt.NDArray[Any] = np.asarray(result)[0].astype(dtype)
    values = values.T if picture else values  # columns first
    png = picture and is_picture(options["image"]) and dtype == "uint8"
    suffix = str(options.get("result_extension") or (".png" if png else ".nii.gz"))
    if suffix.endswith((".nii", ".nii.gz")):  # MONAI Label's own writers stumble over one slice, or over sheared axes
        affine = np.eye(4) if picture else np.asarray(prediction.anomaly_map.affine)
        handle, name = tempfile.mkstemp(suffix=suffix)
        os.close(handle)
        nib.loadsave.save(nib.nifti1.Nifti1Image(values, affine), name)
        return name
    data = {
        "pred": values,
        "pred_meta_dict": {"affine": None if picture else np.asarray(prediction.anomaly_map.affine)},
        "result_extension": suffix,
        "result_compress": options.get("result_compress", False),
    }
    try:
        file: str = Writer()(data)[0]
    except RuntimeError as error:  # ITK's, whose message quotes the path
        raise ValueError(f"This result cannot be written as '{suffix}': ask for '.nii.gz' or '.nrrd'.") from error
    return file


class PromptTuningTask(TrainTask):
    """Tunes the prompts in use on all final labels; empty ones are normal studies.

    The tuned prompts take effect for every task as soon as they are saved; those of before are kept. When the loss
    does not fall, nothing changes.

    Args:
        model: whose prompts are tuned.
    """

    def __init__(self, model: AnomalyModel) -> None:
        super().__init__("Re-tune the prompts on the final labels")
        self.model = model

    def config(self) -> dict[str, Any]:
        """Options that clients show."""
        return {
            "device": device_list(),
            "preset": list(PRESET_NAMES),
            "max_epochs": 10,
            "learning_rate": 0.001,
            "train_batch_size": 8,
        }

    def stats(self) -> dict[str, Any]:
        """What the last tuning did (see :class:`~monai_anomalyclip.label.prompt_tuning.TuningReport`)."""
        try:
            content: dict[str, Any] = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return {}
        return content

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Tune on what the datastore lists.

        Returns:
            what :meth:`stats` gives afterwards.

        Raises:
            ValueError: there is no final label, or an option has no such value.
        """
        options = {**self.config(), **request}
        network, report = tune_prompts(
            self.model,
            [{key: pair[key] for key in ("image", "label")} for pair in datastore.datalist()],
            device=name_to_device(options["device"]),
            preset=single(options["preset"]),
            max_epochs=int(single(options["max_epochs"])),
            learning_rate=float(single(options["learning_rate"])),
            batch_size=int(single(options["train_batch_size"])),
        )
        if report.improved:
            self.model.save_prompts(network)
        else:
            logger.warning("The loss did not fall: the prompts stay as they were.")
        result = {**report.to_dict(), "prompts": self.model.prompts_digest}
        with replaced_when_complete(self._record) as unfinished:
            unfinished.write_text(json.dumps(result, indent=4) + "\n")
        return result

    @property
    def _record(self) -> Path:
        self.model.folder.mkdir(parents=True, exist_ok=True)
        return self.model.folder / "tuning.json"
