# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Final labels that an archive cannot take: those that mark nothing, and those of pictures without a position.

DICOM has no segmentation without a segment, and MONAI Label 0.8.5 makes none of a series without positions
(radiographs, endoscopy); it answers HTTP 500 when such a label is saved over DICOMweb, and to a request for such a
segmentation. Here the label is kept in the server's own folder under the tag ``kept``, from where it counts as a final
label, and the request is answered with JSON.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import binary_to_image
from monailabel.endpoints import infer
from monailabel.interfaces.datastore import DefaultLabelTag

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.label_files import is_empty_label

__all__ = [
    "KEPT_TAG",
    "ArchiveDatastore",
    "FolderDatastore",
    "answer_on_saved_label",
    "answer_without_segmentation",
    "is_normal_label",
    "saved_label_answer",
]

# MONAI Label saves a label, then calls the app in the same request, but does not tell it the label's tag.
_ANSWER: ContextVar[dict[str, Any]] = ContextVar("_ANSWER")


class FolderDatastore(LocalDatastore):
    """Datastore of a local folder that takes readable final labels only; it has no attributes of its own."""

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label; with a final one it is noted whether it is that of a normal study."""
        answer_on_saved_label({})
        if label_tag == DefaultLabelTag.FINAL:
            normal = is_normal_label(label_filename)
            label_info = {**(label_info or {}), "normal": normal}
            answer_on_saved_label({"normal": normal})
        return str(super().save_label(image_id, label_filename, label_tag, label_info))


def is_normal_label(path: str) -> bool:
    """Whether a label marks nothing.

    Raises:
        HTTPException: it cannot be read; the client gets status 400.
    """
    try:
        return is_empty_label(path)
    except UnreadableInputError as error:
        raise HTTPException(status_code=400, detail=f"The label was not saved: {error}") from error


def answer_on_saved_label(answer: dict[str, Any]) -> None:
    """Note what the client is told of the label that this request saves."""
    _ANSWER.set(answer)


def saved_label_answer() -> dict[str, Any]:
    """What was noted in this request; empty when nothing was."""
    return dict(_ANSWER.get({}))


KEPT_TAG = "kept"

logger = logging.getLogger(__name__)


class ArchiveDatastore(DICOMWebDatastore):
    """DICOMweb datastore that takes every final label; it has no attributes beyond its base class's."""

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Save a label; a final one that the archive cannot take is kept here."""
        answer_on_saved_label({})
        if label_tag != DefaultLabelTag.FINAL:
            return str(super().save_label(image_id, label_filename, label_tag, label_info, label_id))
        normal, archived = is_normal_label(label_filename), False
        try:
            if normal:
                saved = self._keep(image_id, label_filename, {**label_info, "normal": True})
            else:
                saved = str(super().save_label(image_id, label_filename, label_tag, label_info, label_id))
                self._forget_kept(image_id)
                archived = True
        except FileNotFoundError:  # the tool that makes segmentations made none
            logger.warning("No DICOM segmentation can be made of a label: it is kept in the server's folder.")
            saved = self._keep(image_id, label_filename, {**label_info, "normal": False})
        answer_on_saved_label({"normal": normal, "archived": archived})
        # What was just saved is to be seen at once, not only when the cached answer of the archive expires.
        DICOMWebDatastore.get_labeled_images.cache_clear()
        return saved

    def kept_labels(self) -> dict[str, bool]:
        """Ids of the images whose final label is kept here, and whether it marks nothing."""
        return {
            name: bool(entry.labels[KEPT_TAG].info.get("normal"))
            for name, entry in sorted(self._datastore.filter_by_tag(KEPT_TAG).items())
        }

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images with a segmentation in the archive, and those whose label is kept here."""
        segmented = list(super().get_labeled_images(label_tag, labels))
        listed = set(self.list_images())
        return segmented + [name for name in self.kept_labels() if name in listed and name not in segmented]

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Pairs of image and label for training; a label that is kept here was saved last."""
        kept = [
            {"image": self.get_image_uri(name), "label": LocalDatastore.get_label_uri(self, name, KEPT_TAG)}
            for name in self.kept_labels()
        ]
        images = {pair["image"] for pair in kept}
        return [pair for pair in super().datalist(full_path) if pair["image"] not in images] + kept

    def _keep(self, image_id: str, label_filename: str, label_info: dict[str, Any]) -> str:
        image = self.get_image_uri(image_id)  # the image is listed here only once it was fetched
        converted = binary_to_image(image, label_filename) if label_filename.endswith(".bin") else ""
        try:
            return str(LocalDatastore.save_label(self, image_id, converted or label_filename, KEPT_TAG, label_info))
        finally:
            if converted:
                os.unlink(converted)

    def _forget_kept(self, image_id: str) -> None:
        if image_id in self.kept_labels():
            LocalDatastore.remove_label(self, image_id, KEPT_TAG)
            self.refresh()


def answer_without_segmentation() -> None:
    """Have the server answer JSON instead of HTTP 500 where it can make no DICOM segmentation.

    MONAI Label offers no hook there: its function that sends the response is replaced, once.
    """
    send = infer.send_response
    if getattr(send, "answers_without_segmentation", False):
        return

    def send_response(datastore: Any, result: dict[str, Any], output: Any, background_tasks: Any) -> Any:
        file = result.get("dicom_seg")
        if output != "dicom_seg" or file is None or os.path.exists(file):
            return send(datastore, result, output, background_tasks)
        params = send(datastore, result, "json", background_tasks)
        why = "No segmentation can be made of this series." if file else "Nothing was found."
        return JSONResponse({**params, "normal": not file, "detail": f"There is no segmentation: {why}"})

    send_response.answers_without_segmentation = True  # type: ignore[attr-defined]
    infer.send_response = send_response
