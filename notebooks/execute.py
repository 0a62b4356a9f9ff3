# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Execute the notebooks, each in a clean copy of what it needs, and write their outputs back (``make notebooks``)."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["NOTEBOOKS", "clean_copy", "execute", "main"]

FOLDER = Path(__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def clean_copy(target: Path) -> Path:
    """Copy what a fresh clone has for the notebooks.

    Args:
        target: an empty folder.

    Returns:
        the notebooks' folder in the copy.
    """
    made_later = shutil.ignore_patterns("data", "runs", "*.pt", ".ipynb_checkpoints", "__pycache__")
    for name in ("bundles", "configs", "notebooks"):
        shutil.copytree(FOLDER.parent / name, target / name, ignore=made_later)
    return target / "notebooks"


def execute(notebook: Path, *, timeout: int = 900) -> NotebookNode:
    """Run all cells in the notebook's own folder, with the commands of this interpreter's environment.

    Args:
        notebook: file that is read and not written.
        timeout: of a cell, in seconds.

    Returns:
        the notebook with its new outputs, without anything that differs from run to run or from machine to machine.

    Raises:
        CellExecutionError: a cell failed.
    """
    content = nbformat.read(notebook, as_version=4)
    commands = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    client = NotebookClient(
        content,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebook.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=environment)
    content.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in content.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if output.output_type == "stream":  # commands write to a pseudo-terminal
                output.text = output.text.replace("\r\n", "\n")
    return content


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute all notebooks, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all")
    for notebook in parser.parse_args(arguments).notebook or NOTEBOOKS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            content = execute(clean_copy(Path(folder)) / notebook.name)
        nbformat.write(content, FOLDER / notebook.name)
        print(f"{notebook.name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
