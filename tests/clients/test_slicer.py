# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The module of 3D Slicer, Slicer put aside: nodes hold arrays and matrices as Slicer's do, the network is real."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import nibabel as nib
import numpy as np
import pytest

from monai_anomalyclip import Predictor
from monai_anomalyclip.demo.studies import demo_volume

MODULE = Path(__file__).parents[2] / "clients" / "slicer" / "AnomalyCLIP" / "AnomalyCLIP.py"


class Matrix:
    """vtkMatrix4x4."""

    def __init__(self) -> None:
        self.values = np.eye(4)

    def SetElement(self, row: int, column: int, value: float) -> None:
        self.values[row, column] = value

    def GetElement(self, row: int, column: int) -> float:
        return float(self.values[row, column])


class Volume:
    """vtkMRMLScalarVolumeNode."""

    def __init__(self, voxels: np.ndarray, affine: np.ndarray, name: str = "head") -> None:
        self.voxels, self.affine, self.name = voxels, affine, name
        self.display = MagicMock()
        self.transform = "vtkMRMLTransformNode1"

    def GetName(self) -> str:
        return self.name

    def GetIJKToRASMatrix(self, matrix: Matrix) -> None:
        matrix.values = self.affine.copy()

    def GetTransformNodeID(self) -> str:
        return self.transform

    def SetAndObserveTransformNodeID(self, name: str) -> None:
        self.transform = name

    def CreateDefaultDisplayNodes(self) -> None:
        pass

    def GetDisplayNode(self) -> MagicMock:
        return self.display


@pytest.fixture
def slicer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the logic uses of Slicer; what it was asked to do is kept."""
    done = SimpleNamespace(installed=[], agreed=True, masks=[], layers=[], segmentations=[])

    def segmentation(kind: str, name: str) -> MagicMock:
        assert kind == "vtkMRMLSegmentationNode"
        node = MagicMock()
        node.GetSegmentation().AddEmptySegment.return_value = "segment"
        done.segmentations.append(node)
        return node

    def update(mask: np.ndarray, node: Any, segment: str, reference: Volume) -> None:
        assert mask.shape == reference.voxels.shape
        done.masks.append((mask, node, segment))

    util = SimpleNamespace(
        arrayFromVolume=lambda node: node.voxels,
        addVolumeFromArray=lambda array, ijkToRAS, name: Volume(array, ijkToRAS.values, name),
        setSliceViewerLayers=lambda **layers: done.layers.append(layers),
        updateSegmentBinaryLabelmapFromArray=update,
        confirmOkCancelDisplay=lambda text, windowTitle: done.agreed,
        pip_install=done.installed.append,
    )
    fake = ModuleType("slicer")
    fake.util, fake.mrmlScene = util, SimpleNamespace(AddNewNodeByClass=segmentation)
    base = ModuleType("slicer.ScriptedLoadableModule")
    for kind in ("", "Logic", "Widget"):
        name = f"ScriptedLoadableModule{kind}"
        setattr(base, name, type(name, (), {"__init__": lambda self, parent=None: None}))
    monkeypatch.setitem(sys.modules, "slicer", fake)
    monkeypatch.setitem(sys.modules, "slicer.ScriptedLoadableModule", base)
    monkeypatch.setitem(sys.modules, "vtk", SimpleNamespace(vtkMatrix4x4=Matrix))
    return done


@pytest.fixture
def module(slicer: SimpleNamespace) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("AnomalyCLIP", MODULE)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def bundle(untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untuned_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle)


@pytest.fixture
def logic(module: Any, predictor: Predictor) -> Any:
    found = module.AnomalyCLIPLogic()
    found.predictor = predictor
    return found


def head() -> tuple[np.ndarray, np.ndarray]:
    """Few slices, and an affine that turns and flips."""
    volume = demo_volume("head_ct", 5)
    turned = np.array([[0, -1, 0, 40], [0.9, 0, 0.1, -20], [-0.1, 0, 4.9, 7], [0, 0, 0, 1.0]])
    return np.asarray(volume.image, dtype=np.int16)[..., 3:6], turned


def test_map_lies_where_the_volume_lies(logic: Any, slicer: SimpleNamespace, predictor: Predictor) -> None:
    voxels, affine = head()
    node = Volume(voxels.T, affine)
    score = logic.score(node, "ct-brain")
    expected = predictor(nib.Nifti1Image(voxels, affine), preset="ct-brain")
    assert score == expected.anomaly_score
    [layers] = slicer.layers
    shown = layers["foreground"]
    assert layers["background"] is node
    np.testing.assert_array_equal(shown.voxels.T, np.asarray(expected.anomaly_map.dataobj, dtype=np.float32))
    np.testing.assert_allclose(shown.affine, affine)
    assert shown.transform == node.transform
    shown.display.SetWindowLevelMinMax.assert_called_once_with(0.0, 1.0)


def test_slider_changes_one_mask(logic: Any, slicer: SimpleNamespace) -> None:
    voxels, affine = head()
    logic.score(Volume(voxels.T, affine))
    levels = [0.0, float(np.median(logic.map)), 1.0]
    counts = [logic.show_mask(level) for level in levels]
    assert counts == [int((logic.map >= level).sum()) for level in levels]
    assert counts[0] == voxels.size > counts[1] > 0
    assert len(slicer.segmentations) == 1
    assert {segment for _, _, segment in slicer.masks} == {"segment"}
    logic.score(Volume(voxels.T, affine, "other"))
    logic.show_mask(0.5)
    assert len(slicer.segmentations) == 2


@pytest.mark.parametrize("voxels", [None, np.zeros((2, 8, 8, 3)), np.zeros((0, 8, 8))], ids=["none", "colour", "empty"])
def test_what_is_no_volume(voxels: np.ndarray | None, logic: Any) -> None:
    with pytest.raises(ValueError, match="volume of gray values"):
        logic.score(Volume(voxels, np.eye(4)))  # type: ignore[arg-type]


def test_mask_before_a_score(logic: Any) -> None:
    with pytest.raises(ValueError, match="Score a volume first"):
        logic.show_mask(0.5)


def test_network_is_loaded_once(module: Any, bundle: Path) -> None:
    logic = module.AnomalyCLIPLogic()
    logic.load(str(bundle), "cpu")
    first = logic.predictor
    logic.load(str(bundle), "cpu")
    assert logic.predictor is first
    assert str(first.device) == "cpu"


def test_nothing_is_installed_unasked(module: Any, slicer: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    logic = module.AnomalyCLIPLogic()
    assert logic.install("monai_anomalyclip")  # is there
    present = iter([False, False, True])
    monkeypatch.setattr(module.AnomalyCLIPLogic, "is_installed", staticmethod(lambda: next(present)))
    slicer.agreed = False
    assert not logic.install("monai_anomalyclip")
    assert slicer.installed == []
    slicer.agreed = True
    assert logic.install("monai_anomalyclip")
    assert slicer.installed == ["monai_anomalyclip"]


def test_old_slicer(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "version_info", (3, 9, 10))
    with pytest.raises(RuntimeError, match=r"Slicer has 3\.9: use Slicer 5\.10"):
        module.AnomalyCLIPLogic().install("monai_anomalyclip")
