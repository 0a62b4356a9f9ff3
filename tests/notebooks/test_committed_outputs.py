# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is committed of the notebooks: outputs with pictures, nothing of a machine, and the research-use sentence."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MEGABYTE = 1_000_000

# Absolute paths, object addresses, times of day and dates: they differ from machine to machine or from run to run.
PRIVATE = re.compile(
    r"(?<![\w.:/<-])/(?:home|root|tmp|work|usr|var|opt|mnt|Users|private)/|[A-Za-z]:\\\\?Users|site-packages"
    r"|0x[0-9a-f]{8,}|\b\d{1,2}:\d{2}:\d{2}\b|\b20\d\d-\d\d-\d\d\b"
)


def problems(notebook: NotebookNode, size: int) -> list[str]:
    """Everything that a committed notebook must not be, in words."""
    found = [f"{size} bytes"] if size >= MEGABYTE else []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("execution counts out of order")
    prose = " ".join("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())
    if "Research use only. Not a medical device; not for diagnosis or treatment." not in prose:
        found.append("no research-use sentence")
    if "phantom" not in prose:
        found.append("does not say that its images are phantoms")
    if not any(line.startswith("assert ") for cell in code for line in cell.source.splitlines()):
        found.append("checks nothing")
    outputs = [output for cell in code for output in cell.outputs]
    if not any(key.startswith("image/") for output in outputs for key in output.get("data", {})):
        found.append("no picture")
    for output in outputs:
        texts = [output.get("text", ""), *output.get("traceback", [])]
        texts += [value for key, value in output.get("data", {}).items() if not key.startswith("image/")]
        found += [f"holds {match.group()!r}" for text in texts for match in PRIVATE.finditer(text)]
        if output.output_type == "error" or "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            found.append(f"output of type {output.output_type} with {list(output.get('data', {}))}")
        if output.get("name") == "stderr" and not output.text.startswith("Demonstration backbone"):
            found.append(f"warning {output.text[:80]!r}")
    if notebook.metadata != {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }:
        found.append("metadata of one machine; `make notebooks` leaves them out")
    return found


def test_there_are_seven() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == list("1234567")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook, path.stat().st_size) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_show_something(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            for key, value in output.get("data", {}).items():
                if key.startswith("image/"):
                    with Image.open(io.BytesIO(base64.b64decode(value))) as picture:
                        low, high = picture.convert("L").getextrema()
                        assert (picture.width <= 1200, high - low > 50) == (True, True)


@pytest.mark.parametrize(
    "text",
    ["see /home/ann/study", "/tmp/x.log", "C:\\Users\\ann", "at 0x7f351ae1c710", "12:30:01,5 INFO", "on 2026-11-26"],
)
def test_what_is_private_is_found(text: str) -> None:
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", ["runs/study/report.html", "../bundles/x", "http://127.0.0.1:8000/", "50:50", "1.2.3"])
def test_what_is_harmless_is_not(text: str) -> None:
    assert not PRIVATE.search(text)


def test_problems_are_seen() -> None:
    cell = nbformat.v4.new_code_cell("1 / 0", execution_count=7)
    cell.outputs = [
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=["/home/ann/x"]),
        nbformat.v4.new_output("stream", name="stderr", text="UserWarning"),
    ]
    found = problems(nbformat.v4.new_notebook(cells=[cell]), MEGABYTE)
    assert len(found) == 10, found
