# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_anomalyclip.writers.record import redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such file: '/data/John Doe/1 2.dcm'", "No such file: '[path]'"),
        ("""cannot open "/data/O'Brien/x.dcm" (damaged)""", """cannot open "[path]" (damaged)"""),
        ("cannot open /data/John Doe/x.dcm: damaged\nsecond line", "cannot open [path]\nsecond line"),
        ("file=/x", "file=[path]"),
        ("at:/x/y", "at:[path]"),
        (r"C:\Users\doe\x.nii", "[path]"),
        ("D:/doe", "[path]"),
        (r"'\\server\doe\x'", "'[path]'"),
        (repr(r"\\server\doe\x"), "'[path]'"),
        ("//server/doe", "[path]"),
        ("~/scans and ~doe/scans", "[path]"),
        ("file:///x", "[path]"),
        ("(/x)", "([path]"),
        ("instance 1.2.840.10008.5.1.4.1.1.2 lacks pixels", "instance [UID] lacks pixels"),
        ("2.25.329800735698586629295641978511506172918.1.7", "[UID]"),
    ],
)  # fmt: skip
def test_paths_and_uids_are_blanked_out(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "and/or 3/4 mm/s",
        r"Not a gzipped file (b'\\\\\x01')",
        r"it begins with b'\\\\ab'",
        "frames/001 sub/a_mask.png",
        "score / frame",
        "</p> <br/>",
        "https://host/page",
        "monai 1.6.1, torch 2.14.1+cu130, address 10.0.0.1",
        "mean (0.48145466, 0.4578275, 0.40821073)",
        "2024-01-01T12:00:00+00:00",
        "ct-brain: 0 to 80 HU",
        "C: 3",
        "in this file: none",
        "ViT-L-14-336-quickgelu",
        "",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert redacted(text) == text
