# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What an exported file says of itself: origin, and how to prepare images and to read the results, in any language."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.networks import FrozenCLIPNetwork
from monai_anomalyclip.writers.dicom.provenance import describe_model

__all__ = ["DESCRIPTION_KEY", "describe_export", "read_description"]

DESCRIPTION_KEY = "monai_anomalyclip"
"""Key of the JSON text in an ONNX model's ``metadata_props``; with ``.json`` the extra file in a .pt2."""


def describe_export(
    network: FrozenCLIPNetwork, prompts: str | Path | None, image_size: int, sigma: float
) -> dict[str, Any]:
    """Describe a network that is going to be exported.

    Args:
        network: with its prompts loaded.
        prompts: their file; None, or a file that does not exist, for a method that needs none.
        image_size: side of the square input in pixels.
        sigma: standard deviation, in pixels of the input, of the Gaussian that the bundle smooths the map with.
    """
    return {
        "notice": RESEARCH_USE_ONLY,
        "package": f"monai_anomalyclip {__version__}",
        **describe_model(network, prompts).model_dump(mode="json"),
        "image_size": image_size,
        "preprocessing": {
            "steps": [
                "intensities to [0, 1], gray repeated to 3 channels in the order red, green, blue",
                "resize to image_size x image_size, aspect ratio not kept: bicubic (a = -0.5), antialiased",
                "clamp to [0, 1]",
                "subtract mean, divide by std, per channel",
            ],
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
            "input": {"image": ["batch", 3, image_size, image_size]},
            "dtype": "float32",
        },
        "outputs": {
            "anomaly_map": {"shape": ["batch", 1, image_size, image_size], "range": [0, 1], "smoothed": False},
            "anomaly_score": {"shape": ["batch"], "range": [0, 1], "calibrated": False},
        },
        "postprocessing": {
            "steps": [
                "smooth the map with a Gaussian of sigma pixels, truncated at 4 sigma, edge pixels mirrored (d c b a | "
                "a b c d | d c b a)",
                "resize it to the picture's size: bilinear, pixel centres aligned, antialiased where it shrinks",
            ],
            "sigma": sigma,
        },
    }


def read_description(path: str | Path) -> dict[str, Any]:
    """Read what an exported .onnx or .pt2 says of itself; the model is not run.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it was not written by ``monai-anomalyclip export``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no exported model at '{path}': monai-anomalyclip export makes one.")
    text = _of_archive(path) if zipfile.is_zipfile(path) else _of_onnx(path)
    if text is None:
        raise ValueError(f"'{path}' was not written by monai-anomalyclip export: it has no description.")
    description: dict[str, Any] = json.loads(text)
    return description


def _of_archive(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(f"/{DESCRIPTION_KEY}.json")]
        return archive.read(names[0]).decode() if names else None


def _of_onnx(path: Path) -> str | None:
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's, which differ between its versions
        raise ValueError(f"'{path}' is neither an ONNX model nor a .pt2 archive.") from error
    return next((prop.value for prop in model.metadata_props if prop.key == DESCRIPTION_KEY), None)
