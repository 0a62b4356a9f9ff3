# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The inference workflow of a bundle with its network loaded once, for one small work after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.bundles.shipped import beside_overlays, inference_config, literal_path
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.engines import InputsFailedError
from monai_anomalyclip.handlers import AnomalyResultWriter
from monai_anomalyclip.writers.output_folder import OutputFolder
from monai_anomalyclip.writers.record import MadeWith
from monai_anomalyclip.writers.resume import Resume

__all__ = ["RunOptions", "WarmRun", "WorkDone", "catalogue_of"]


@dataclass(frozen=True)
class RunOptions:
    """What a run is made with; can be sent to another process.

    Args:
        bundle: folder of a bundle, or the name of a shipped one; None for ``anomalyclip``, with a reference for that
            alone.
        prompts: a prompt checkpoint to use instead of the bundle's.
        reference: a file that ``monai-anomalyclip reference build`` made.
        configs: files that overlay the bundle's ``inference.json``.
        force: replace existing results.
        ids: further ids of the configuration, such as ``{"sigma": 2.0}``.
    """

    bundle: str | os.PathLike[str] | None = None
    prompts: str | os.PathLike[str] | None = None
    reference: str | os.PathLike[str] | None = None
    configs: Sequence[str | os.PathLike[str]] = ()
    force: bool = False
    ids: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkDone:
    """What became of some inputs.

    Args:
        written: names of those that were scored now.
        failed: reason by name.
        passing: names of those that may do well another time.
    """

    written: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    passing: frozenset[str] = frozenset()


class WarmRun:
    """Runs a bundle's inference on catalogues of inputs; the network is loaded for the first and stays.

    Results are those of ``monai-anomalyclip predict``, to the last bit: the same workflow makes them. Tables and report
    are not made.

    Args:
        options: what results are made with.

    Raises:
        FileNotFoundError: there is no such bundle, or it has no prompts.

    Example:
        >>> run = WarmRun(RunOptions("bundles/anomalyclip_demo"))
        >>> run(InputCatalogue("study"), OutputFolder("results")).failed
        {}
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self._files, self._given = _configuration(options)
        try:
            parser = self._parser()
            self._given["device"] = str(parser.get_parsed_content("device"))
            network = parser.get_parsed_content("network_def")
            # Files are checked before the network is built, as the workflow's initialisation has it.
            parser.get_parsed_content("initialize")
            self._kept = {"network_def": network}
            if "reference_network" in parser:  # beside it
                self._kept["reference_network"] = parser.get_parsed_content("reference_network")
        except RuntimeError as error:  # MONAI wraps what its expressions raise
            raise cause_of(error) from None
        self._parsed = parser
        self._made: MadeWith | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """How inputs are read: fields of :class:`~monai_anomalyclip.data.ReadOptions`."""
        found: dict[str, Any] = self._parsed.get_parsed_content("reading")
        return found

    def made_with(self, folder: OutputFolder) -> MadeWith:
        """What results are made with, before there are any.

        Args:
            folder: any folder of results.
        """
        if self._made is None:
            parser = self._parser()
            parser["catalogue"] = InputCatalogue([], options=self.reading, empty=True)
            parser["writer#output_dir"] = folder
            self._with_network(parser)
            self._made = parser.get_parsed_content("writer").made_with
        return self._made

    def __call__(self, catalogue: InputCatalogue, folder: OutputFolder) -> WorkDone:
        """Score inputs and write their results; what is finished is left out.

        Args:
            catalogue: the inputs.
            folder: where results go; several processes may write into one.

        Raises:
            FileExistsError: the folder holds results that were made in another way.
        """
        parser = self._parser()
        parser["output_dir"] = str(folder.path)
        parser["catalogue"] = catalogue
        parser["writer#output_dir"] = folder
        parser["inferer#inferer#progress" if "inferer#inferer" in parser else "inferer#progress"] = False
        self._with_network(parser)
        passing: frozenset[str] = frozenset()
        try:
            parser.get_parsed_content("run")
        except RuntimeError as error:
            cause = cause_of(error)
            if not isinstance(cause, InputsFailedError):
                raise cause from None
            passing = cause.passing
        writer: AnomalyResultWriter = parser.get_parsed_content("writer")
        return WorkDone(tuple(writer.written), dict(writer.failed), passing)

    def fail(self, catalogue: InputCatalogue, folder: OutputFolder, reason: str) -> WorkDone:
        """Record that inputs failed, without reading them.

        Args:
            catalogue: the inputs.
            folder: where their records go.
            reason: why.
        """
        states = Resume(folder, catalogue.sources, lambda: self.made_with(folder), self.options.force, whole=False)
        for name in catalogue.sources:
            states.fail(name, reason)
        return WorkDone(failed=dict(states.failed))

    def _with_network(self, parser: ConfigParser) -> None:
        """Give a configuration that is complete the networks, so that it builds none."""
        parser.parse(True)
        parser.ref_resolver.resolved_content |= self._kept

    def _parser(self) -> ConfigParser:
        return _parser_of(self._files, self._given)


def catalogue_of(
    options: RunOptions, inputs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> InputCatalogue:
    """The inputs that a run would find, by the bundle's settings; no network is made.

    Args:
        options: what results are made with.
        inputs: files and folders.
        output: folder of the results, which is no input.
    """
    files, given = _configuration(options)
    parser = _parser_of(files, given)
    parser["dataset_dir"] = [literal_path(Path(path).absolute()) for path in inputs]
    parser["output_dir"] = literal_path(Path(output).absolute())
    try:
        catalogue: InputCatalogue = parser.get_parsed_content("catalogue")
    except RuntimeError as error:
        raise cause_of(error) from None
    return catalogue


def _configuration(options: RunOptions) -> tuple[list[str], dict[str, Any]]:
    """Files of the configuration, and what is given in place of what they say."""
    config = inference_config(options.bundle, with_reference=options.reference is not None)
    files = [str(config), *(str(Path(path).absolute()) for path in options.configs)]
    given: dict[str, Any] = {
        "bundle_root": literal_path(config.parents[1].absolute()),
        "overwrite": options.force,
        "writer#tables": False,
        **options.ids,
    }
    if options.reference is not None:
        files[1:1] = beside_overlays(options.bundle)
        given["reference"] = literal_path(Path(options.reference).absolute())
    if options.prompts is not None:
        given["prompts"] = literal_path(Path(options.prompts).absolute())
    return files, given


def _parser_of(files: Sequence[str], given: dict[str, Any]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(list(files))
    for key, value in given.items():
        parser[key] = value
    return parser
