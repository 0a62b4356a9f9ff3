# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Blank out what could tell whom a text is about: absolute paths and DICOM's unique identifiers."""

from __future__ import annotations

import re

__all__ = ["redacted"]

# An absolute path: /x, //host, ~/x, C:\x, \\host, file:. Not "and/or", "</p>", "https://host/x", the bytes b'\\\x01'.
_PATH_START = (
    r"(?:(?<![\w.\-<)/:])//?(?=[^\s/])|(?<=:)/(?=[^\s/])|~[\w.-]*/|\b[A-Za-z]:[\\/]"
    r"|(?<!\\)(?<!b['\"])\\{2,}(?=\w)|\bfile:/)"
)
_QUOTED_PATH = re.compile(rf"""(['"]){_PATH_START}.*?\1""")
_BARE_PATH = re.compile(rf"{_PATH_START}.*")
_UID = re.compile(r"(?<![\d.])\d+(?:\.\d+){4,}")


def redacted(text: str) -> str:
    """The text with absolute paths and UIDs replaced by ``[path]`` and ``[UID]``: for messages of other libraries.

    A path in quotation marks ends with them; any other takes the rest of its line along, as folders' names may hold
    spaces. Five or more numbers joined by dots are a UID.
    """
    return _UID.sub("[UID]", _BARE_PATH.sub("[path]", _QUOTED_PATH.sub(r"\1[path]\1", text)))
