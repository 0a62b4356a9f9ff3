# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""No import runs upward, and no two files import each other by any way: the order of docs/architecture.md, held.

Every import counts, also those within functions and those for types alone. A name that a package hands out (see its
``__init__.pyi``) counts as the module that it comes from.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = "monai_anomalyclip"
ROOT = REPOSITORY / PACKAGE
FILES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
# Where a module of a higher package is named in a text and imported by that name: guests that may be absent.
GUESTS = {
    f"{PACKAGE}.cli.program": f"{PACKAGE}.experiments.reproduce.command",
    f"{PACKAGE}.data.datasets.registry": f"{PACKAGE}.experiments.datasets.registry",
}


@cache
def allowed() -> dict[str, set[str]]:
    """The packages from low to high in docs/architecture.md, and what each may import; "" are the files at the top."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Which package may import which")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \d+ \| (.*?) \| .* \| (.*?) \|$", table, re.MULTILINE)
    found: dict[str, set[str]] = {}
    for package, others in rows:
        name = "" if package == "top-level files" else package.strip("`")
        named = set(found) if others == "all above" else set(re.findall(r"\w+", others)) - {"none"}
        assert named <= set(found), f"{package} may import what does not stand above it: {named - set(found)}"
        found[name] = named | {"", name}
    return found


@cache
def handed_out(package: str) -> dict[str, str]:
    """The module that each name of a package comes from, by its stub."""
    stub = FILES[package].with_suffix(".pyi")
    if not stub.is_file():
        return {}
    lines = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{package}.{line.module}" for line in lines for alias in line.names if line.module}


def target(name: str) -> str | None:
    """The module that holds a dotted name of this package, or None for what is not ours."""
    if name.split(".")[0] != PACKAGE:
        return None
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module not in FILES:
            continue
        origin = handed_out(module).get(parts[length]) if length < len(parts) else None
        return target(origin) if origin else module
    return None


def imports(module: str) -> Iterator[tuple[str, int]]:
    """What a module imports of ours, and in which line."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            found = target(name)
            if found and found != module:
                yield found, node.lineno


GRAPH = {module: dict(imports(module)) for module in FILES}


def package_of(module: str) -> str:
    """The name below the package when it is in the order, or is a folder; "" for other files at the top."""
    _, name, *deeper = [*module.split("."), ""]
    if name == "__main__":  # lies at the top by its name alone: `python -m monai_anomalyclip` is the command line
        return "cli"
    return name if deeper[:-1] or name in allowed() or FILES[module].parent.name == name else ""


def reached(start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        following = set(GRAPH[todo.pop()]) - found
        found |= following
        todo += following
    return found


def test_the_written_order_names_every_package() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    files = {path.stem for path in ROOT.glob("*.py")}
    assert folders <= set(allowed()) <= {"", *folders, *files}


def may_import(module: str, other: str) -> bool:
    return package_of(other) in allowed()[package_of(module)]


def test_imports_are_those_of_the_table() -> None:
    others = [(module, line, other) for module in FILES for other, line in GRAPH[module].items()]
    assert [found for found in others if not may_import(found[0], found[2])] == []


def test_no_module_reaches_itself() -> None:
    assert [module for module in FILES if module in reached(module)] == []


def test_every_pair_of_packages_goes_one_way() -> None:
    pairs = {(package_of(module), package_of(other)) for module in FILES for other in GRAPH[module]}
    both = {(one, other) for one, other in pairs if one != other and (other, one) in pairs}
    assert both == set()


def test_no_text_names_another_module() -> None:
    """Imports by name, such as importlib's, are held to the table, too, but for the guests."""
    found = {}
    for module, path in FILES.items():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        if named := {text for text in texts if text in FILES and not may_import(module, text)}:
            found[module] = named
    assert found == {module: {guest} for module, guest in GUESTS.items()}


def test_the_check_sees_every_kind_of_import() -> None:
    """On a module of which it is known what it imports: plainly, within a function, and for types alone."""
    assert target(f"{PACKAGE}.networks.AnomalyCLIP") == f"{PACKAGE}.networks.anomaly_clip"
    assert target(f"{PACKAGE}.data.load_input") == f"{PACKAGE}.data.inputs"
    assert target("torch.nn") is None
    assert f"{PACKAGE}.bundles.offline" in GRAPH[f"{PACKAGE}.cli.weights"]  # within a function
    assert f"{PACKAGE}.cli.program" in GRAPH[f"{PACKAGE}.__main__"]  # through the name that cli hands out
