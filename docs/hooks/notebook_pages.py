# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The notebooks as pages below Tutorials, with the outputs and pictures that are kept in them; nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

_TO_RESULTS = re.compile(r"\[([^\]]*)\]\(runs/[^)]*\)")  # they are there for whoever ran the notebook
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks into the navigation, after what is in its part Tutorials already."""
    (tutorials,) = (part["Tutorials"] for part in config.nav or () if "Tutorials" in part)
    tutorials.extend(page_of(notebook) for notebook in NOTEBOOKS)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and their pictures."""
    for notebook in NOTEBOOKS:
        text, pictures = _converted(notebook)
        files.append(File.generated(config, page_of(notebook), content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
        files.append(File.generated(config, f"tutorials/{notebook.name}", abs_src_path=str(notebook)))
    return files


def page_of(notebook: Path) -> str:
    """The page that a notebook becomes, within the folder of the documentation."""
    return f"tutorials/{notebook.stem}.md"


def _converted(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown, and the pictures in it by the names that they have there."""
    document = nbformat.read(notebook, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(
        document, resources={"output_files_dir": f"{notebook.stem}_pictures"}
    )
    # A notebook lies beside docs/, its page below it.
    text = _TO_RESULTS.sub(r"\1", text).replace("](../docs/", "](../")
    title, _, rest = text.lstrip().partition("\n")
    link = f"[The notebook itself]({notebook.name}), to run it; below is what it showed when it was last run.\n"
    return f"{title}\n\n{link}{rest}", resources["outputs"]
