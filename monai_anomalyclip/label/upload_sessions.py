# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Images that clients upload for a session, and archives of them, which are unpacked with care."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import HTTPException
from monailabel.utils.sessions import Sessions

from monai_anomalyclip.label.request_values import plain_name

__all__ = ["CheckedSessions"]

_FILES = 100_000
_ENCRYPTED = 0x1
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
