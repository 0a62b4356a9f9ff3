# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The page that the Hugging Face Hub shows of a bundle: its documentation, headed by the fields that the Hub reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["hub_card"]

_CLIP = "openai/clip-vit-large-patch14-336"
_LINK = re.compile(r"!?\[([^\]]*)\]\((?!\w+:|#)[^)\s]+\)")


def hub_card(bundle: str | Path) -> str:
    """A bundle's ``README.md`` for the Hub.

    MONAI's own ``push_to_hf_hub`` writes tags, library and licence only; this card also has the task, the model that
    it is based on and the paper, by which it is found. Links to other files of the repository become plain text.

    Args:
        bundle: folder of the bundle.

    Returns:
        ``docs/README.md`` with a YAML head.

    Raises:
        FileNotFoundError: it has no metadata or no documentation.

    Example:
        >>> print(hub_card("bundles/anomalyclip"))  # doctest: +ELLIPSIS
        ---
        ...
    """
    from huggingface_hub import ModelCardData

    bundle = Path(bundle)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    papers = re.findall(r"arxiv\.org/abs/([\d.]+\d)", " ".join(metadata.get("references", ())))
    based_on_clip = (bundle / "large_files.yml").is_file()
    head = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="monai",
        pipeline_tag="image-segmentation",
        tags=["monai", "medical", "anomaly-detection", "zero-shot", *(f"arxiv:{paper}" for paper in papers)],
        base_model=_CLIP if based_on_clip else None,
        model_name=metadata["name"],
    )
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    return f"---\n{head.to_yaml()}\n---\n\n{_LINK.sub(lambda link: link[1], text)}"
