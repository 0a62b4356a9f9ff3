# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a command's slow imports need not take: garbage collection, and what MONAI imports for its other users."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["lasting_imports"]

# Modules that MONAI imports with all of itself, and what it takes from each by name, which it only calls. A second of
# the processor and 140 MiB, for transforms and metrics that few runs use.
_LATE: dict[str, tuple[str, ...]] = {
    "bs4": ("BeautifulSoup",),
    "matplotlib.pyplot": (),
    "pandas": ("DataFrame",),
    "scipy.signal": ("hilbert", "iirnotch"),
    "scipy.spatial": ("KDTree",),
    "skimage.exposure": (),
    "skimage.measure": ("centroid", "find_contours"),
    "skimage.morphology": ("disk", "opening"),
    "skimage.segmentation": ("watershed",),
    "sklearn": (),
    "sklearn.linear_model": ("LogisticRegression",),
    "sklearn.metrics": ("silhouette_score",),
}


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Within the block no garbage is collected, and what is there at its end never; MONAI's rarer parts come later.

    Torch and MONAI are a million objects. Looking through them again and again takes a second while they are imported,
    some time whenever a run collects its own garbage, and more than a second when the program ends. What MONAI holds of
    the modules that come later is imported when something of it is used; others that import them get them as ever.

    Example::

        with lasting_imports():
            from monai_anomalyclip.inference import predict
    """
    enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    watch = _BeforeMONAI()
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
        for module in watch.late:
            _withdraw(module)
        if len(sys.modules) > known:  # else what a caller has made would be kept, too
            gc.freeze()
        if enabled:
            gc.enable()


class _BeforeMONAI:
    """Is asked for every module that is not there yet, has none itself, but prepares what MONAI is about to ask for."""

    def __init__(self) -> None:
        self.late: list[_LateModule] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Where a module lies: not here."""
        if name == "monai":
            self.late += [module for each in _LATE if (module := _late(each)) is not None]


class _LateModule(ModuleType):
    """Stands for a module until something of it is used.

    The import system asks for ``__path__`` before it imports anything below, which brings the module itself.
    """

    __file__: str | None = None

    def __getattr__(self, name: str) -> Any:
        if name in _LATE[self.__name__] and sys.modules.get(self.__name__) is self:
            return partial(_call, self.__name__, name)
        _withdraw(self)
        return getattr(import_module(self.__name__), name)


def _call(module: str, name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(import_module(module), name)(*args, **kwargs)


def _late(name: str) -> _LateModule | None:
    """Put a stand-in where the import system looks; None where the module is there already, or is not installed."""
    package, _, own = name.rpartition(".")
    module, holder = _LateModule(name), sys.modules.get(package)
    if isinstance(holder, _LateModule):  # asking where it lies would import the package
        module.__file__ = holder.__file__
    else:
        with suppress(ImportError):
            spec = find_spec(name)
            module.__file__ = None if spec is None else spec.origin
    if name in sys.modules or not module.__file__:  # MONAI takes what has none for a folder
        return None
    sys.modules[name] = module
    if package:
        setattr(sys.modules[package], own, module)
    return module


def _withdraw(module: _LateModule) -> None:
    """Take a stand-in away, so that the module itself is imported by the next who asks for it."""
    package, _, own = module.__name__.rpartition(".")
    for place, name in ((sys.modules, module.__name__), (vars(sys.modules.get(package, module)), own)):
        if place.get(name) is module:
            del place[name]
