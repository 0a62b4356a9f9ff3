# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A scripted module for 3D Slicer: the anomaly map and mask of the loaded volume. Research use only.

The window is made here; what it does is in :class:`AnomalyCLIPLogic`, which needs no window.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

RESEARCH_USE_ONLY = "Research use only. Not a medical device; not for diagnosis or treatment."
OLDEST_PYTHON = (3, 10)
MAP_COLOUR = "vtkMRMLColorTableNodeFileColdToHotRainbow.txt"


class AnomalyCLIP(ScriptedLoadableModule):
    """What Slicer shows of the module in its menu."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = "AnomalyCLIP"
        parent.categories = ["Segmentation"]
        parent.contributors = ["monai_anomalyclip authors"]
        parent.helpText = (
            "Shows where a volume looks unlike normal images to AnomalyCLIP: a map in [0, 1], and a mask where it "
            f"reaches a threshold. No server is needed. {RESEARCH_USE_ONLY}"
        )
        parent.acknowledgementText = "AnomalyCLIP: Zhou et al., ICLR 2024. MONAI: Project MONAI."


class AnomalyCLIPLogic(ScriptedLoadableModuleLogic):
    """Installs the package, scores a volume node, and shows map and mask."""

    def __init__(self) -> None:
        super().__init__()
        self.predictor: Any = None
        self.loaded: tuple[str, str] | None = None
        self.volume: Any = None
        self.map: np.ndarray | None = None
        self.segmentation: Any = None

    @staticmethod
    def is_installed() -> bool:
        """Whether Slicer's Python has the package."""
        return importlib.util.find_spec("monai_anomalyclip") is not None

    def install(self, requirement: str) -> bool:
        """Install the package and what it needs into Slicer's Python, if the user agrees.

        Args:
            requirement: what pip is given: a name, or the path of a wheel.

        Returns:
            whether it is there now.

        Raises:
            RuntimeError: Slicer's Python is too old.
        """
        if sys.version_info < OLDEST_PYTHON:
            found = ".".join(map(str, sys.version_info[:2]))
            raise RuntimeError(
                f"Python 3.10 or newer is needed, and this Slicer has {found}: use Slicer 5.10 or newer."
            )
        if self.is_installed():
            return True
        asked = (
            f"Install {requirement} into Slicer's Python? With PyTorch and MONAI that is up to several GB, and it "
            "takes minutes. Versions of packages that other modules use may change."
        )
        if not slicer.util.confirmOkCancelDisplay(asked, windowTitle="AnomalyCLIP"):
            return False
        slicer.util.pip_install(requirement)
        importlib.invalidate_caches()
        return self.is_installed()

    def load(self, bundle: str, device: str = "") -> None:
        """Load the network of a bundle; what is loaded already stays.

        Args:
            bundle: its folder, or the name of a shipped one.
            device: such as "cpu" or "cuda"; "" for the first GPU, else the CPU.
        """
        from monai_anomalyclip import Predictor

        if self.loaded != (bundle, device):
            self.predictor = Predictor(bundle, device=device or None)
            self.loaded = (bundle, device)

    def score(self, volume: Any, preset: str = "auto") -> float:
        """Score a volume, and show its map over it.

        Args:
            volume: vtkMRMLScalarVolumeNode.
            preset: of intensities, such as "ct-brain".

        Returns:
            the anomaly score in [0, 1], not calibrated.

        Raises:
            ValueError: the node holds no volume of gray values.
        """
        import nibabel as nib

        voxels = slicer.util.arrayFromVolume(volume)  # (K, J, I)
        if voxels is None or voxels.ndim != 3 or min(voxels.shape) == 0:
            raise ValueError("Choose a volume of gray values: this one is empty, or has colours or several frames.")
        affine = ijk_to_ras(volume)
        prediction = self.predictor(nib.Nifti1Image(np.ascontiguousarray(voxels.T), affine), preset=preset)
        self.volume = volume
        self.map = np.ascontiguousarray(np.asarray(prediction.anomaly_map.dataobj, dtype=np.float32).T)
        self.segmentation = None
        self.show_map(affine)
        return float(prediction.anomaly_score)

    def show_map(self, affine: np.ndarray) -> Any:
        """The map as a volume of its own, in front of what was scored."""
        matrix = vtk.vtkMatrix4x4()
        for row in range(4):
            for column in range(4):
                matrix.SetElement(row, column, float(affine[row, column]))
        node = slicer.util.addVolumeFromArray(self.map, ijkToRAS=matrix, name=f"{self.volume.GetName()} anomaly map")
        node.SetAndObserveTransformNodeID(self.volume.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(MAP_COLOUR)
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0.0, 1.0)
        slicer.util.setSliceViewerLayers(background=self.volume, foreground=node, foregroundOpacity=0.4)
        return node

    def show_mask(self, threshold: float) -> int:
        """The mask as a segment; a further call changes it.

        Args:
            threshold: in [0, 1].

        Returns:
            the number of voxels in it.

        Raises:
            ValueError: nothing has been scored.
        """
        if self.map is None:
            raise ValueError("Score a volume first.")
        mask = (self.map >= threshold).astype(np.uint8)
        if self.segmentation is None:
            node = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLSegmentationNode", f"{self.volume.GetName()} anomaly mask"
            )
            node.CreateDefaultDisplayNodes()
            node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
            node.SetAndObserveTransformNodeID(self.volume.GetTransformNodeID())
            self.segmentation = (node, node.GetSegmentation().AddEmptySegment("", "anomaly"))
        node, segment = self.segmentation
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, self.volume)
        return int(mask.sum())


def ijk_to_ras(volume: Any) -> np.ndarray:
    """The volume's own matrix (4, 4), without transforms that it lies under."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


class AnomalyCLIPWidget(ScriptedLoadableModuleWidget):
    """The module's panel."""

    def setup(self) -> None:
        super().setup()
        import ctk
        import qt

        self.logic = AnomalyCLIPLogic()
        form = qt.QFormLayout()
        self.layout.addLayout(form)
        self.requirement = qt.QLineEdit("monai_anomalyclip")
        self.requirement.toolTip = "What pip installs: a name, or the path of a wheel"
        form.addRow("Package", self.requirement)
        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.addEnabled = self.volume.removeEnabled = False
        self.volume.setMRMLScene(slicer.mrmlScene)
        form.addRow("Volume", self.volume)
        self.bundle = ctk.ctkPathLineEdit()
        self.bundle.filters = ctk.ctkPathLineEdit.Dirs
        self.bundle.toolTip = "Folder that `monai-anomalyclip weights bundle` made"
        form.addRow("Bundle", self.bundle)
        self.preset = qt.QLineEdit("auto")
        form.addRow("Intensity preset", self.preset)
        self.run = qt.QPushButton("Score")
        self.run.connect("clicked()", self.onScore)
        form.addRow(self.run)
        self.threshold = ctk.ctkSliderWidget()
        self.threshold.minimum, self.threshold.maximum, self.threshold.singleStep = 0.0, 1.0, 0.01
        self.threshold.value = 0.5
        self.threshold.enabled = False
        self.threshold.connect("valueChanged(double)", self.onThreshold)
        form.addRow("Threshold of the mask", self.threshold)
        self.said = qt.QLabel(RESEARCH_USE_ONLY)
        self.said.wordWrap = True
        form.addRow(self.said)
        self.layout.addStretch(1)

    def onScore(self) -> None:
        with slicer.util.tryWithErrorDisplay("The volume could not be scored.", waitCursor=True):
            if not self.logic.install(self.requirement.text):
                self.said.text = "Nothing was installed."
                return
            self.logic.load(self.bundle.currentPath)
            score = self.logic.score(self.volume.currentNode(), self.preset.text)
            self.threshold.enabled = True
            self.threshold.value = self.logic.predictor.threshold
            self.onThreshold(self.threshold.value)
            self.said.text = f"Anomaly score {score:.2f}, not calibrated. {RESEARCH_USE_ONLY}"

    def onThreshold(self, value: float) -> None:
        if self.logic.map is not None:
            self.logic.show_mask(value)
