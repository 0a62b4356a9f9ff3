# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import onnx
import pytest

from monai_anomalyclip.export import read_description


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no exported model at"):
        read_description(tmp_path / "absent.onnx")


def test_files_of_others(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("other/version", "3")
    for name in ("other.onnx", "other.pt2"):
        with pytest.raises(ValueError, match="was not written by monai-anomalyclip export"):
            read_description(tmp_path / name)


def test_no_model_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"\xff\xfenot a model")
    with pytest.raises(ValueError, match="neither an ONNX model nor"):
        read_description(tmp_path / "text.onnx")
