# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of ``monai-anomalyclip``: the commands are beside this module; what completes them in a shell is here."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.cli.plain_messages import EXIT_STATUS, INPUTS_FAILED
from monai_anomalyclip.data.errors import DamagedInputError

__all__ = ["add_completion", "lasting_imports", "main", "program_parser", "run"]

# Command -> module (beside this one where it has no dots) and the function in it that adds the command, "add_command"
# where none is named; in the order of --help. A module is imported when its command is used or when all are listed, and
# imports what is slow (torch, MONAI, pydicom) only when the command runs.
_COMMANDS = {
    "predict": "predict",
    "reference": "reference",
    "inspect": "inspect",
    "report": "report",
    "list": "shared_work:add_list",
    "merge": "shared_work:add_merge",
    "template": "shared_work:add_template",
    "app": "app",
    "archive": "archive",
    "serve": "serve",
    "datalist": "datalist",
    "reproduce": "monai_anomalyclip.experiments.reproduce.command",  # a guest by name: nothing here imports it
    "weights": "weights",
    "copy-bundle": "bundle_folders:add_copy_bundle",
    "federated": "federated",
    "convert-prompts": "weights:add_convert_prompts",
    "export": "export",
    "label-app": "bundle_folders:add_label_app",
    "doctor": "doctor",
    "completion": "program:add_completion",
}

_EXAMPLES = f"""examples:
  monai-anomalyclip inspect studies
  monai-anomalyclip predict studies -o results --bundle bundles/anomalyclip --preset ct-brain
  monai-anomalyclip report results
  monai-anomalyclip datalist mvtec mvtec_anomaly_detection -o mvtec_anomaly_detection/datalist.json
  monai-anomalyclip reproduce demo -o runs/reproduce --methods clip
  monai-anomalyclip weights bundle -o anomalyclip_ready
  monai-anomalyclip convert-prompts epoch_15.pth bundles/anomalyclip/models/model.pt
  monai-anomalyclip export --bundle bundles/anomalyclip -o anomalyclip.onnx
  monai-anomalyclip label-app label_app --bundle bundles/anomalyclip
  monai-anomalyclip doctor

Tuning, inference and evaluation are MONAI bundles:
  python -m monai.bundle run training --config_file bundles/anomalyclip_demo/configs/train.json \\
      --bundle_root bundles/anomalyclip_demo

{EXIT_STATUS}"""

SHELLS = ("bash", "zsh", "fish")

_PLACES = """examples:
  monai-anomalyclip completion bash > ~/.local/share/bash-completion/completions/monai-anomalyclip
  monai-anomalyclip completion zsh > ~/.zfunc/_monai-anomalyclip        (with ~/.zfunc in fpath, before compinit)
  monai-anomalyclip completion fish > ~/.config/fish/completions/monai-anomalyclip.fish
"""


def program_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the program: with one command when that is all that is needed, else with all of them."""
    parser = argparse.ArgumentParser(
        prog="monai-anomalyclip",
        description=f"Zero-shot anomaly detection in medical images. {RESEARCH_USE_ONLY}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in [command] if command in _COMMANDS else _COMMANDS:
        module, _, function = _COMMANDS[name].partition(":")
        found = import_module(module if "." in module else f"{__package__}.{module}")
        getattr(found, function or "add_command")(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: command line without the program's name; default is ``sys.argv``.

    Returns:
        exit status (see EXIT_STATUS): 1 comes with one sentence on standard error.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = program_parser(words[0] if words else None).parse_args(words)
    try:
        status: int = parsed.run(parsed)
    except KeyboardInterrupt as error:
        anew = parsed.command == "predict" and parsed.force
        again = "the same command without --force" if anew else "the same command"
        print(f"Interrupted: what is finished is kept, and {again} does the rest.", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)
    except (OSError, ValueError, RuntimeError, ImportError, HTTPException) as error:
        cause = cause_of(error)
        # Where something is optional, our own sentence says what to install.
        hint = ": `monai-anomalyclip doctor` shows what is missing" if isinstance(cause, ModuleNotFoundError) else ""
        print(f"error: {cause}{hint}", file=sys.stderr)
        return INPUTS_FAILED if isinstance(cause, DamagedInputError) else 1
    return status


def run() -> None:
    """Run the command of the command line and end the process with its status.

    What Python does at its end is done: threads are waited for, what was registered with `atexit` is called. But the
    million objects of torch and MONAI are left to the system; taking them apart takes a third of a second, and more
    after a large volume.
    """
    status = main()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (AttributeError, OSError, ValueError):  # no such stream, or nobody reads it any more: Python knows the rest
        sys.exit(status)
    os._exit(status)


def add_completion(commands: Any) -> None:
    """Add the command to the sub-parsers of the program."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands, options and files in a shell",
        description=f"Print a completion script; the examples say where each shell looks for it. {RESEARCH_USE_ONLY}",
        epilog=_PLACES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    parser = program_parser()
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell=arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Let every argument that takes a path complete one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type is Path or action.metavar == "INPUT":
            action.complete = files  # type: ignore[attr-defined]


# Modules that MONAI, ignite, torchvision and open_clip import with all of themselves, and what they take from each by
# name, which they only call, or ask objects whether they are one of. 1.7 seconds of the processor and 340 MiB, for
# transforms, metrics, sharded optimisers, compiled operators and towers that few runs use.
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
    "timm": ("create_model",),
    "timm.layers": ("AttentionPool2d", "Mlp", "RotAttentionPool2d", "to_2tuple"),
    "torch._dynamo.utils": ("is_compile_supported",),
    "torch.distributed.optim": ("ZeroRedundancyOptimizer",),
}
_ASKING = ("ignite", "monai", "torchvision")
_BY_NAME = ("timm.layers", "torch._dynamo.utils", "torch.distributed.optim")  # of which others want no more than that
_WHOLE = ("torch._dynamo",)  # packages that come later as a whole: not even they are imported for what is in them


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
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    try:
        yield
        if watch.late:
            import_module("open_clip")  # whoever loads a network comes after the block
    finally:
        sys.meta_path.remove(watch)
        for module in watch.late:
            _withdraw(module)
        if len(sys.modules) > known:  # else what a caller has made would be kept, too
            gc.freeze()
        if enabled:
            gc.enable()


class _Watch:
    """Is asked for every module that is not there yet, has none itself, but prepares what they are about to ask for."""

    def __init__(self) -> None:
        self.late: list[_LateModule] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Where a module lies: not here."""
        if name in _ASKING and not self.late:
            self.late += [module for each in _LATE if (module := _late(each)) is not None]


class _LateModule(ModuleType):
    """Stands for a module until something of it is used.

    The import system asks for ``__path__`` before it imports anything below, which brings the module itself.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "__path__" and self.__name__ in _BY_NAME and not _asked_by_import_system():
            raise AttributeError(name)  # `from ... import name` looks whether there may be a module of that name
        if name in _LATE[self.__name__] and sys.modules.get(self.__name__) is self:
            return _LateName(self.__name__, name)
        _withdraw(self)
        return getattr(__import__(self.__name__, fromlist=[name]), name)  # that may be a module below


def _asked_by_import_system() -> bool:
    return sys._getframe(2).f_globals.get("__name__") == "importlib._bootstrap"


class _LateName:
    """Stands for a function or a class until it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(self._module), self._name)(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        module = sys.modules.get(self._module)
        if module is None or isinstance(module, _LateModule):
            return False  # nobody can have made one
        return isinstance(instance, getattr(module, self._name))


def _late(name: str) -> _LateModule | None:
    """Put a stand-in where the import system looks; None where the module is there already, or is not installed."""
    package, _, own = name.rpartition(".")
    if package and package not in sys.modules and package not in _WHOLE:
        with suppress(ImportError):
            import_module(package)
    holder = sys.modules.get(package)
    if name in sys.modules or (package and holder is None and package not in _WHOLE):
        return None
    if (spec := _spec_of(name)) is None:
        return None
    module = _LateModule(name)
    module.__spec__, module.__file__ = spec, spec.origin  # MONAI takes what has no file for a folder
    sys.modules[name] = module
    if holder:
        setattr(holder, own, module)
    return module


def _spec_of(name: str) -> ModuleSpec | None:
    """Where a module lies, without importing the package that it is in."""
    package, _, _ = name.rpartition(".")
    holder = sys.modules.get(package)
    within = (holder.__spec__ if holder else _spec_of(package)) if package else None
    return PathFinder.find_spec(name, within.submodule_search_locations if within else None)


def _withdraw(module: _LateModule) -> None:
    """Take a stand-in away, and those below it, so that the module itself is imported by the next who asks for it."""
    for name, other in list(sys.modules.items()):
        if isinstance(other, _LateModule) and name.startswith(f"{module.__name__}."):
            _withdraw(other)
    package, _, own = module.__name__.rpartition(".")
    for place, name in ((sys.modules, module.__name__), (vars(sys.modules.get(package, module)), own)):
        if place.get(name) is module:
            del place[name]
