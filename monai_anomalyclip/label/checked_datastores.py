# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Datastores and upload sessions that make paths of plain names only, and write nothing outside their folders."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.others.generic import remove_file
from monailabel.utils.sessions import Sessions

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.archive_labels import ArchiveDatastore, FolderDatastore
from monai_anomalyclip.label.request_values import check_info, lies_inside, plain_name, series_uid

__all__ = ["CheckedArchive", "CheckedFolder", "CheckedSessions", "told_to_the_client", "upload_removed_on_failure"]

_NOT_FOUND = 404
_LABELS = ("*.nii.gz", "*.nii", "*.nrrd", "*.mha", "*.png")  # labels come as these whatever the images are

_FILES = 100_000
_ENCRYPTED = 0x1
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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

    @abstractmethod
    def check_image(self, image_id: str) -> str:
        """The name of an image that may be asked for.

        Raises:
            HTTPException: status 400, it is no name; 404, there is none of that name.
        """

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


class CheckedSessions(Sessions):
    """MONAI Label's sessions, of whose ids no paths elsewhere can be made.

    MONAI Label 0.8.5 joins any id to a path, which it reads and removes, and has Python unpack every kind of archive,
    of which tar files can write anywhere. Here only ZIP files are unpacked, as far as `max_bytes` allows.

    Args:
        store_path: folder of the sessions; MONAI Label's own choice when empty.
        expiry: seconds until an unused session is removed.
        max_bytes: the largest contents of an archive.
    """

    def __init__(self, store_path: str, expiry: int, max_bytes: int) -> None:
        super().__init__(store_path, expiry)
        self.max_bytes = max_bytes

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """The session of an id; None when there is none."""
        return super().get_session(session_id, update_ts, fetch_cache) if _is_id(session_id) else None

    def remove_session(self, session_id: str) -> None:
        """Remove a session and its files."""
        if _is_id(session_id):
            super().remove_session(session_id)

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, Any]:
        """Take over an uploaded file or folder.

        Raises:
            HTTPException: status 400, it is to be unpacked and cannot be.
        """
        source = data_file
        if uncompress and os.path.isfile(data_file):
            source = tempfile.mkdtemp()
            try:
                unpack_zip(data_file, source, self.max_bytes)
            except ValueError as error:
                shutil.rmtree(source, ignore_errors=True)
                raise HTTPException(status_code=400, detail=str(error)) from None
            finally:
                os.unlink(data_file)
        added: tuple[str, Any] = super().add_session(source, expiry, False, session_id)
        return added


def unpack_zip(file: str | os.PathLike[str], folder: str | os.PathLike[str], max_bytes: int) -> None:
    """Unpack a ZIP file into an empty folder.

    Args:
        file: what to unpack.
        folder: where to.
        max_bytes: the largest contents.

    Raises:
        ValueError: it is no ZIP file, damaged, encrypted, too large, or has names that lead out of the folder.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > max_bytes or len(entries) > _FILES:
                raise ValueError(
                    f"The archive holds {len(entries)} files of {size} bytes, at most {_FILES} of {max_bytes} bytes "
                    "are unpacked: send parts of it."
                )
            for entry in entries:
                if entry.flag_bits & _ENCRYPTED:
                    raise ValueError("The archive is encrypted: send one that is not.")
                path = PurePosixPath(entry.filename)
                if path.is_absolute():
                    raise ValueError("Names in the archive must not be absolute paths.")
                for part in path.parts:
                    plain_name(part, "Each part of a name in the archive")
            for entry in entries:
                target = Path(folder, *PurePosixPath(entry.filename).parts)
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, target.open("xb") as unpacked:  # no entry replaces another
                    shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"The upload is no ZIP file, or a damaged one ({type(error).__name__}).") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ValueError("The archive holds the same name more than once: send one without.") from None


def _is_id(session_id: object) -> bool:
    return isinstance(session_id, str) and _ID.fullmatch(session_id) is not None
