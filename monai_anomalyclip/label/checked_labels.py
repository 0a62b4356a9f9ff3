# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Final labels are looked at before they are stored: a damaged one is refused, and nothing of before is lost by it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.label_files import is_empty_label

__all__ = ["FolderDatastore", "answer_on_saved_label", "is_normal_label", "saved_label_answer"]

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
