# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every class that a package hands out, and that its users make themselves, has an example; examples are true."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pydantic
import pytest
import torch

import monai_anomalyclip

ROOT = Path(monai_anomalyclip.__file__).parent
RUN = ("transforms", "metrics")
"""Packages whose examples need no weights and no files: they are run."""


def handed_out() -> dict[str, type]:
    """Classes by package and name; not those that the package fills in itself, errors, and what is abstract."""
    found = {}
    for stub in sorted(ROOT.rglob("__init__.pyi")):
        place = stub.parent.relative_to(ROOT.parent)
        package = import_module(".".join(place.parts))
        for name in package.__all__:
            one = getattr(package, name)
            if not isinstance(one, type) or name.endswith(("D", "Dict")):  # MONAI's other names of one class
                continue
            filled_in = dataclasses.is_dataclass(one) or issubclass(one, tuple | dict | pydantic.BaseModel)
            if not filled_in and not issubclass(one, BaseException) and not inspect.isabstract(one):
                found[f"{place.name}.{name}"] = one
    return found


CLASSES = handed_out()


def example(one: type) -> str:
    """The code below "Example:" or "Example::", without prompts and what is printed."""
    text = inspect.cleandoc(one.__dict__["__doc__"] or "")
    block = re.search(r"^Examples?::?\n+((?: +.*\n?|\n)+)", text, re.MULTILINE)
    if block is None:
        return ""
    code = textwrap.dedent(block[1])
    if ">>>" in code:
        return "\n".join(line[4:] for line in code.splitlines() if line.startswith((">>> ", "... ")))
    return code


@pytest.mark.parametrize("name", CLASSES)
def test_there_is_an_example_that_fits_the_signature(name: str) -> None:
    one = CLASSES[name]
    code = example(one)
    assert code, f"{one.__module__}.{one.__name__} has no example in its docstring"
    made = {
        line.targets[0].id
        for line in ast.walk(ast.parse(code))
        if isinstance(line, ast.Assign)
        and isinstance(line.targets[0], ast.Name)
        and isinstance(line.value, ast.Call)
        and isinstance(line.value.func, ast.Name)
        and line.value.func.id == one.__name__
    }
    attributes = set(dir(one)) | {*inspect.get_annotations(one)} | {*re.findall(r"self\.(\w+)", inspect.getsource(one))}
    for call in ast.walk(ast.parse(code)):
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id in made:
            assert call.attr in attributes, f"{one.__name__} has no {call.attr}"
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != one.__name__:
            continue
        if any(isinstance(argument, ast.Constant) and argument.value is ... for argument in call.args):
            continue
        keywords = {word.arg: None for word in call.keywords if word.arg}
        inspect.signature(one).bind_partial(*[None] * len(call.args), **keywords)


@pytest.mark.parametrize("name", [name for name in CLASSES if name.partition(".")[0] in RUN])
def test_examples_run(name: str) -> None:
    one = CLASSES[name]
    module = sys.modules[one.__module__]
    (test,) = (
        found for found in doctest.DocTestFinder(recurse=False).find(one, module=module) if found.name == one.__name__
    )
    assert test.examples or "Example::" in (one.__doc__ or "")
    test.globs |= {"torch": torch}
    output: list[str] = []
    assert doctest.DocTestRunner().run(test, out=output.append).failed == 0, "".join(output)
