# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Datastores that make paths of plain names only, and write and remove nothing outside the studies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.others.generic import remove_file

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.archive_labels import ArchiveDatastore, FolderDatastore
from monai_anomalyclip.label.request_values import check_info, lies_inside, plain_name, series_uid

__all__ = ["CheckedArchive", "CheckedFolder", "told_to_the_client", "upload_removed_on_failure"]

_NOT_FOUND = 404
_LABELS = ("*.nii.gz", "*.nii", "*.nrrd", "*.mha", "*.png")  # labels come as these whatever the images are


@contextmanager
def told_to_the_client() -> Iterator[None]:
    """Answer status 400 with the sentence of an error for which the request is to blame."""
    try:
        yield
    except (FileNotFoundError, UnreadableInputError, ValueError) as error:
        raise HTTPException(status_code=400, detail=str(error)) from error


@contextmanager
def upload_removed_on_failure(path: str) -> Iterator[None]:
    """Remove an uploaded file when it is not taken: MONAI Label does so after requests that succeed only."""
    try:
        yield
    except BaseException:
        if lies_inside(path, tempfile.gettempdir()):
            remove_file(path)
        raise


class _CheckedStore(LocalDatastore):
    """Has no attributes of its own: a datastore that was made already is given this class."""

    def check_image(self, image_id: str) -> str:
        """The name of an image that may be asked for.

        Raises:
            HTTPException: status 400, it is no name; 404, there is none of that name.
        """
        raise NotImplementedError

    def has_label(self, label_id: str, label_tag: str) -> bool:
        """Whether there is a label of this image and tag."""
        return self._datastore.label(label_id, label_tag) is not None

    def save_label(self, image_id: str, label_filename: str, label_tag: str, *rest: Any, **options: Any) -> str:
        """Save a label of an image that there is, under a plain tag."""
        with upload_removed_on_failure(label_filename):
            self.check_image(image_id)
            _check_kind(label_filename, self._label_kinds())
            with told_to_the_client():
                plain_name(label_tag, "tag")
            folder = self._datastore.label_path(label_tag)
            self._check_inside(os.path.join(folder, self._filename(image_id, self._to_id(label_filename)[1])))
            try:
                return str(super().save_label(image_id, label_filename, label_tag, *rest, **options))
            except ValueError as error:  # among others of raw bytes that are not as many as the image has voxels
                raise HTTPException(status_code=400, detail=f"The label was not saved: {error}.") from error

    def _label_kinds(self) -> list[str]:
        return list(dict.fromkeys([*self._extensions, *_LABELS]))

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label of an image, unless its file lies elsewhere."""
        self._check_inside(LocalDatastore.get_label_uri(self, label_id, label_tag) or self._datastore_path)
        super().remove_label(label_id, label_tag)

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels, unless its file lies elsewhere."""
        self.check_image(image_id)
        entry = self._datastore.objects.get(image_id)
        if entry is not None:
            self._check_inside(os.path.join(self._datastore.image_path(), self._filename(image_id, entry.image.ext)))
        super().remove_image(image_id)

    def _check_inside(self, path: str) -> None:
        if not lies_inside(path, self._datastore_path):
            raise HTTPException(
                status_code=400,
                detail="A link leads out of the studies there: nothing is written to or removed from elsewhere.",
            )


class CheckedFolder(_CheckedStore, FolderDatastore):
    """A local folder: images are those that it lists."""

    def check_image(self, image_id: str) -> str:
        """See the base class."""
        with told_to_the_client():
            name = plain_name(image_id, "The image")
        if name not in self._datastore.objects:
            raise HTTPException(
                status_code=_NOT_FOUND, detail="There is no image of this name: /datastore/?output=all lists them."
            )
        return name

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image of a kind that the folder lists, under a plain name."""
        with upload_removed_on_failure(image_filename):
            _check_kind(image_filename, self._extensions)
            stem, extension = self._to_id(os.path.basename(image_filename))
            with told_to_the_client():
                name = plain_name(image_id or stem, "The image")
                check_info(image_info or {})
            self._check_inside(os.path.join(self._datastore.image_path(), self._filename(name, extension)))
            return str(super().add_image(name, image_filename, image_info))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Images and final labels as a ZIP file."""
        if not self.get_labeled_images():
            raise HTTPException(status_code=_NOT_FOUND, detail="There is no final label yet, so there is no data set.")
        return str(super().get_dataset_archive(limit_cases))


class CheckedArchive(_CheckedStore, ArchiveDatastore):
    """A DICOMweb archive: images are named by the UIDs of their series."""

    def check_image(self, image_id: str) -> str:
        """See the base class; whether there is such a series, the archive tells when it is fetched."""
        with told_to_the_client():
            return series_uid(image_id)

    def has_label(self, label_id: str, label_tag: str) -> bool:
        """Whether there is a label of this tag; of final ones the archive is asked later."""
        return label_tag == DefaultLabelTag.FINAL or super().has_label(label_id, label_tag)

    def get_image_uri(self, image_id: str) -> str:
        """The path of a series, which is fetched where it is not here yet."""
        self.check_image(image_id)
        try:
            super().get_image_uri(image_id)
            # The first time MONAI Label answers with a temporary file, beside which the series does not lie.
            return str(super().get_image_uri(image_id))
        except IndexError:
            raise HTTPException(status_code=_NOT_FOUND, detail="The archive has no such series.") from None
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != _NOT_FOUND:
                raise
            raise HTTPException(status_code=_NOT_FOUND, detail="The archive has no such series.") from None

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The path of a label; a final one is named by the UID of its segmentation."""
        with told_to_the_client():
            series_uid(label_id, "The label")
            plain_name(label_tag, "tag")
        return str(super().get_label_uri(label_id, label_tag, image_id))

    def _label_kinds(self) -> list[str]:
        return [*_LABELS, "*.bin"]  # what OHIF sends

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refuse: an image that is put into the cache would be taken for the archive's."""
        with upload_removed_on_failure(image_filename):
            raise HTTPException(status_code=400, detail="Images are sent to the archive itself, not to this server.")

    def remove_image(self, image_id: str) -> None:
        """Refuse: the archive would list it still."""
        raise HTTPException(status_code=400, detail="Images are removed in the archive itself, not here.")

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label that lies on this server."""
        if label_tag == DefaultLabelTag.FINAL:
            raise HTTPException(status_code=400, detail="Final labels are removed in the archive, as segmentations.")
        super().remove_label(label_id, label_tag)


def _check_kind(filename: str, patterns: Sequence[str]) -> None:
    name = os.path.basename(filename).lower()
    if not any(fnmatch(name, pattern.lower()) for pattern in patterns):
        raise HTTPException(status_code=400, detail=f"Only files of these kinds are taken: {', '.join(patterns)}.")
