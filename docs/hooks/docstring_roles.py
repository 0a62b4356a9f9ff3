# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Cross-references of our docstrings (``:class:`Name```) as links of the reference, where there is a target."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class DocstringRoles(griffe.Extension):
    """Rewrite the docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See the class."""
        if obj.docstring is not None:
            linked = _ROLE.sub(lambda match: _link(match, obj), obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", linked, flags=re.MULTILINE)


def _link(match: re.Match[str], obj: griffe.Object) -> str:
    short, name = match.groups()
    shown = name.rpartition(".")[2] if short else name
    try:
        target = obj.resolve(name)
    except griffe.NameResolutionError:
        target = name
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
