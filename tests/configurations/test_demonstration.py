# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""`make demo` in full size: prompts tuned on industrial phantoms find lesions in medical ones."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from monai_anomalyclip.data import InputCatalogue

REPOSITORY = Path(__file__).parents[2]
DEMO = "bundles/anomalyclip_demo"
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_python_of_the_readme(demonstration: Path, run_command: Run) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (demonstration / "example.py").write_text(example)
    shown = run_command("python example.py", demonstration).stdout
    assert re.search(r"anomaly score [01]\.\d\d, map \(1, \d+, \d+\)", shown)


def table(shown: str) -> dict[tuple[str, str], list[float]]:
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    return {(row[0], row[1]): [float(value) for value in row[2:]] for row in rows[1:]}


def test_tuned_prompts_find_lesions_they_were_not_tuned_on(demonstration: Path, run_command: Run) -> None:
    command = f"python -m monai_anomalyclip.demo.evaluation --bundle_root {DEMO}"
    rows = table(run_command(command, demonstration).stdout)
    assert len([family for prompts, family in rows if prompts == "tuned"]) == 5  # four medical families and their mean
    image, pixel, _ = rows["tuned", "mean"]
    plain_image, plain_pixel, _ = rows["object / damaged object", "mean"]
    assert image >= 0.90
    assert pixel >= 0.90
    assert image >= plain_image + 0.03
    assert pixel >= plain_pixel - 0.02


def test_demo_lights_the_planted_lesions(demonstration: Path) -> None:
    bundle = demonstration / DEMO
    results, truth = bundle / "runs" / "inference", bundle / "data" / "inference_truth"
    sources = InputCatalogue(bundle / "data" / "inference").sources
    names = {source.paths[0].name: name for name, source in sources.items()}
    anomaly_map = nibabel.load(results / f"{names['volume.nii.gz']}_map.nii.gz")
    source, mask = nibabel.load(bundle / "data" / "inference" / "volume.nii.gz"), nibabel.load(truth / "volume.nii.gz")
    np.testing.assert_allclose(anomaly_map.affine, source.affine)
    values, lesion = np.asarray(anomaly_map.dataobj), np.asarray(mask.dataobj) > 0
    assert values.shape == lesion.shape
    assert lesion[np.unravel_index(values.argmax(), values.shape)]
    assert values[lesion].mean() > 5 * values[~lesion].mean()
    for path in (truth / "frames").glob("*.png"):
        lesion = np.asarray(Image.open(path)) > 0
        heat = np.asarray(Image.open(results / f"{names[path.name]}_heat.png")).astype(float)
        if lesion.any():
            assert heat[lesion].mean() > 3 * heat[~lesion].mean(), path.name
