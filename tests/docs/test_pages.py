# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The pages' commands and Python, run as printed, page by page, on phantoms; what needs the network is parsed."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pip._internal.commands import create_command
from torch.distributed.run import get_args_parser as torchrun_parser

from monai_anomalyclip.cli.program import program_parser

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

RUN_HERE = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (
        DOCS / "index.md",
        DOCS / "scaling.md",
        *(path for part in ("how_to", "explanation", "reference") for path in (DOCS / part).glob("*.md")),
    )
    if BLOCK.search(path.read_text())
)
DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "bundles/*/docs/*.md")
    for path in REPOSITORY.glob(pattern)
)
NEEDS_NETWORK = ("weights bundle", "weights fetch", "weights verify")


def blocks(document: str) -> list[tuple[str, str, str]]:
    """Language, what follows it on the fence, and text of each fenced block."""
    return BLOCK.findall((REPOSITORY / document).read_text())


def lines(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def commands(document: str) -> list[str]:
    return [line for language, _, text in blocks(document) if language in ("bash", "sh") for line in lines(text)]


@pytest.mark.parametrize("document", RUN_HERE)
def test_page_runs_from_top_to_bottom(
    document: str,
    user_folder: Path,
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, object] = {}  # a page's Python goes on from block to block
    for language, attributes, text in blocks(document):
        if language == "bash":
            for command in lines(text):
                if any(command.startswith(f"monai-anomalyclip {what}") for what in NEEDS_NETWORK):
                    continue  # its options are checked below, its work in tests/weights
                # Without CLIP for real images the doctor has something to say.
                run_command(command, user_folder, check=not command.startswith("monai-anomalyclip doctor"))
        elif language == "python" and "title=" not in attributes:
            capsys.readouterr()
            exec(compile(text, document, "exec"), names)
            assert capsys.readouterr().out.strip(), f"{document}: the example shows nothing"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (document, text)
        for document in DOCUMENTS
        for language, attributes, text in blocks(document)
        if language == "python" and "title=" in attributes
    ],
)
def test_excerpt_is_what_the_code_says(document: str, text: str) -> None:
    (attributes,) = (found for _, found, shown in blocks(document) if shown == text)
    source = re.search(r'title="([^"]+)"', attributes)
    assert source is not None
    code = [line.strip() for line in (REPOSITORY / source[1]).read_text().splitlines()]
    shown = [line.strip() for line in text.splitlines()]
    assert any(code[start : start + len(shown)] == shown for start in range(len(code))), source[1]


@pytest.mark.parametrize(
    ("document", "command"), [(document, command) for document in DOCUMENTS for command in commands(document)]
)
def test_command_is_understood(document: str, command: str) -> None:
    """By the real parsers, without anything being run: also what needs the network, a GPU or another environment."""
    words = shlex.split(command)
    words = words[: words.index("&")] if "&" in words else words
    words = ["python", *words[1:]] if words[0] in ("python3.11", ".venv/bin/python") else words
    if words[0] == "torchrun":
        launched = torchrun_parser().parse_args(words[1:])
        words = ["python", "-m", launched.training_script, *launched.training_script_args]
    words = ["python", "-m", *words] if words[0] == "pip" else words
    if words[0] == "monai-anomalyclip":
        with contextlib.suppress(SystemExit) if "--help" in words else contextlib.nullcontext():
            program_parser().parse_args(words[1:])
    elif words[:3] == ["python", "-m", "pip"]:
        create_command(words[3]).parse_args(words[4:])
    elif words[0] == "make":
        rules = (REPOSITORY / "Makefile").read_text()
        assert all(re.search(rf"^{re.escape(target)}:", rules, re.MULTILINE) for target in words[1:]), command
    elif words[:2] == ["python", "-m"]:
        assert words[2].startswith("monailabel.") or importlib.util.find_spec(words[2]), f"{document}: {words[2]}"
    if words[:3] == ["python", "-m", "monai.bundle"] and "--config_file" in words:
        for file in re.findall(r"[\w./]+\.json", words[words.index("--config_file") + 1]):
            place = file.replace("my_bundle", "bundles/anomalyclip_demo")
            assert (REPOSITORY / place).is_file(), f"{document}: {file}"


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CONTRIBUTING.md"])
def test_fences_say_their_language(document: str) -> None:
    """What says none is neither run nor parsed; commands that only a reader can run (network, placeholders) are sh."""
    fences = [line for line in (REPOSITORY / document).read_text().splitlines() if line.startswith("```")]
    assert all(re.fullmatch(r"```\w+.*", opening) for opening in fences[::2])
    assert set(fences[1::2]) <= {"```"}
    indented = re.findall(
        r"^    (?:python|torchrun|make|pip|curl|monai-anomalyclip) .*", (REPOSITORY / document).read_text(), re.M
    )
    assert not indented


def test_every_page_with_code_is_tested() -> None:
    sources = [path.read_text() for path in REPOSITORY.glob("tests/**/*.py")]
    for document in DOCUMENTS:
        if document in RUN_HERE or not any(language in ("bash", "python") for language, _, _ in blocks(document)):
            continue
        name = Path(document).name
        assert any(document in source or f'"{name}"' in source for source in sources), document


def test_commands_of_all_kinds_are_found() -> None:
    found = [command for document in RUN_HERE for command in commands(document)]
    for part in ("predict", "inspect", "convert-prompts", "datalist", "copy-bundle", "monai.bundle", "pip install"):
        assert any(part in command for command in found), part
