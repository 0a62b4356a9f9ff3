# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import functools

import pytest
import torch

from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.networks.frozen_clip import check_feature_layers


def test_compiled_encoder(reference_net: AnomalyCLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced as by default, but without the compiler proper, which takes minutes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    image = torch.randn(2, 3, 84, 84)
    with torch.no_grad():
        expected = reference_net.predict(image)
        reference_net.compile_encoder()
        compiled = [reference_net.predict(image), reference_net.predict(image[:1])]
        for key, value in expected.items():
            torch.testing.assert_close(compiled[0][key], value, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(compiled[1][key], value[:1], rtol=1e-5, atol=1e-6)
        assert copy.deepcopy(reference_net)._compiled_encode is None
        with pytest.raises(ValueError, match="must have shape"):
            reference_net.predict(image[:, :1])
        reference_net.compile_encoder(False)
        assert torch.equal(reference_net.predict(image)["anomaly_map"], expected["anomaly_map"])


def test_settings_are_checked_before_the_backbone_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"image_size=518\.0 must be a whole number of pixels"):
        AnomalyCLIP("absent", "absent", image_size=518.0)  # type: ignore[arg-type]
    for temperature in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"temperature={temperature} must be positive"):
            AnomalyCLIP("absent", "absent", temperature=temperature)


@pytest.mark.parametrize("layers", [24, "24", None])
def test_layers_are_a_sequence(layers: object) -> None:
    with pytest.raises(ValueError, match=r"feature_layers=.* must be a sequence of block numbers such as \(24,\)"):
        check_feature_layers(layers, 24)
