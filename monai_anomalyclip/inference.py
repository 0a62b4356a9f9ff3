# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The face for files and folders: :func:`predict` scores everything in them and writes the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.bundles.shipped import beside_overlays, inference_config, literal_path, shipped_folder
from monai_anomalyclip.engines import InputsFailedError
from monai_anomalyclip.networks import default_device
from monai_anomalyclip.writers import RunDocument

if TYPE_CHECKING:
    from monai.bundle import ComponentLocator

__all__ = ["RunOutcome", "predict"]

Inputs: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

logger = logging.getLogger(__name__)


@dataclass
class RunOutcome:
    """What a run did, besides what its folder holds: for the status of a program.

    Attributes:
        failed: which inputs failed in this run, and why; None where none did.
        left_out: how many files were left aside, by reason.

    Example:
        >>> outcome = RunOutcome()
        >>> document = predict("study", "results", outcome=outcome)
        >>> outcome.failed is None
    """

    failed: InputsFailedError | None = None
    left_out: dict[str, int] = field(default_factory=dict)


def predict(
    inputs: Inputs,
    output: str | os.PathLike[str],
    bundle: str | os.PathLike[str] | None = None,
    *,
    prompts: str | os.PathLike[str] | None = None,
    clip: str | os.PathLike[str] | None = None,
    threshold: float | str | None = None,
    outputs: Sequence[str] | None = None,
    preset: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    normals: Inputs | None = None,
    calibrate_on: Inputs | None = None,
    fuse: str | None = None,
    cohort: bool = False,
    grouping: str = "input",
    device: str | torch.device | None = None,
    precision: str | None = None,
    force: bool = False,
    configs: Sequence[str | os.PathLike[str]] = (),
    links: str | os.PathLike[str] | None = None,
    part: str | None = None,
    work_list: str | os.PathLike[str] | None = None,
    outcome: RunOutcome | None = None,
    **ids: Any,
) -> RunDocument:
    """Score everything in files and folders and write the results, as ``monai-anomalyclip predict`` does.

    Research use only. What an earlier run finished is left out. An input that fails does not stop the others: its
    record in the returned document says why.

    Args:
        inputs: DICOM, NIfTI, pictures, videos, or folders with a mixture.
        output: folder of the results (see docs/studies.md).
        bundle: folder of a bundle, or the name of a shipped one; default ``bundles/anomalyclip``.
        prompts: a prompt checkpoint to use instead of the bundle's.
        clip: weights of CLIP in any form (see :mod:`monai_anomalyclip.networks.clip_weights`), instead of the bundle's.
        threshold: of masks, in [0, 1], or "calibrated".
        outputs: kinds of files, such as ``["default", "pm"]``.
        preset: intensity preset, such as "ct-brain".
        reference: a file that ``monai-anomalyclip reference build`` made of normal images: inputs are compared with
            them, in place of AnomalyCLIP, or, where `bundle` is given, beside it.
        normals: files or folders with normal inputs alone, in place of `reference`, which is made of them and kept in
            the folder ``.normals`` of `output`; the next run with the same ones uses it again.
        calibrate_on: files or folders with normal inputs alone: before all else they are scored, so that the scores of
            AnomalyCLIP get p-values, now and later (see :meth:`Predictor.calibrate_on`).
        fuse: "fisher" or "geometric", to fuse the scores of AnomalyCLIP and reference; refused where no measurement on
            labelled images says that it helps (see docs/explanation/conformal.md).
        cohort: compare the inputs with each other, without normals and without AnomalyCLIP.
        grouping: how `normals`, `calibrate_on` and `cohort` tell patients apart without DICOM headers: "input" or
            "folder".
        device: "cpu", "cuda", ...; default the first GPU, else the CPU.
        precision: of matrix products: "auto", "float32", "bfloat16", "float16".
        force: score everything and replace existing results.
        configs: files that overlay the bundle's ``inference.json``.
        links: a table that says which input is which, with paths and UIDs, outside of `output` (see
            :func:`~monai_anomalyclip.data.links.write_links`).
        part: such as "3/8": of the inputs only those of this part (see
            :func:`~monai_anomalyclip.data.parts.parse_part`); tables are made by ``monai-anomalyclip merge``.
        work_list: a list of inputs that ``monai-anomalyclip list`` made, in place of `inputs`, which is then empty.
        outcome: gets what became of the inputs in this run; what is returned then names no more of the folder's inputs
            than a screen has room for.
        ids: further ids of the configuration, such as ``sigma=2.0`` or ``**{"reading#stride": 5}``.

    Returns:
        what the folder's ``results.json`` holds; of a part, what its inputs' records hold.

    Raises:
        FileNotFoundError: there is no such bundle, or it has no prompts.
        ValueError: an argument that the bundle cannot take, or a folder with results of other settings.
        UnreadableInputError: there is nothing to read.

    Example:
        >>> from monai_anomalyclip import predict
        >>> document = predict("study", "results", "bundles/anomalyclip_demo")
        >>> [(record.name, record.anomaly_score) for record in document.inputs]
    """
    from monai.bundle import ConfigWorkflow

    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    folder = Path(output).absolute()
    chosen = {key.partition("#")[2]: value for key, value in ids.items() if key.startswith("reading#")}
    chosen |= {} if preset is None else {"preset": preset}
    if normals is not None:
        if reference is not None:
            raise ValueError("Give normals or a reference that was made of some, not both.")
        from monai_anomalyclip.reference.folders import reference_of_folder

        reference = reference_of_folder(
            normals, folder / ".normals", options=chosen, slice_axis=ids.get("slice_axis", "auto"), grouping=grouping,
            device=device or default_device(), failed=_warn_of_normal,
        )  # fmt: skip
    if calibrate_on is not None:
        if configs:
            raise ValueError("Calibrating takes no further configurations: leave them out, or do not calibrate.")
        from monai_anomalyclip.predictor import Predictor

        with Predictor(bundle, prompts, device, precision, clip=clip, **ids) as predictor:
            for name, reason in predictor.calibrate_on(
                calibrate_on, grouping=grouping, exclude=folder, **chosen
            ).items():
                _warn_of_normal(name, reason)
    if cohort:
        if bundle is not None or reference is not None or calibrate_on is not None:
            raise ValueError("A cohort is compared with itself: leave bundle, normals and reference out.")
        if part is not None or work_list is not None:
            raise ValueError("A cohort is compared as a whole: it cannot be scored in parts.")
        bundle = "own_normals"
        ids = {"grouping": grouping, **ids}
    if fuse is not None and (bundle is None or reference is None):
        raise ValueError("Fusing needs both ways of scoring: name a bundle of AnomalyCLIP and a reference.")
    config = inference_config(bundle, with_reference=reference is not None)
    overlays = [*map(str, configs)]
    if cohort:
        overlays.insert(0, str(shipped_folder("configs") / "reference" / "cohort.json"))
    if reference is not None:
        overlays = [*beside_overlays(bundle), *overlays]
        ids = {"reference": literal_path(Path(reference).absolute()), **ids}
    if links is not None:
        from monai_anomalyclip.data.links import check_links, write_links

        check_links(links, folder)
    given = {
        "prompts": None if prompts is None else literal_path(Path(prompts).absolute()),
        "backbone#pretrained": None if clip is None else literal_path(Path(clip).absolute()),
        "threshold": threshold,
        "outputs": None if outputs is None else list(outputs),
        "reading#preset": preset,
        "device": None if device is None else str(device),
        "precision": precision,
        "overwrite": force or None,
        "catalogue#part": part,
        "catalogue#work_list": None if work_list is None else literal_path(Path(work_list).absolute()),
        "writer#tables": None if part is None else False,
        "fuse": fuse,
        **ids,
    }
    workflow = ConfigWorkflow(
        [str(config), *overlays],
        workflow_type="infer",
        logging_file=False,
        bundle_root=literal_path(config.parents[1].absolute()),
        dataset_dir=[literal_path(Path(path).absolute()) for path in paths],
        output_dir=literal_path(folder),
        **{key: value for key, value in given.items() if value is not None},
    )
    workflow.parser.locator = _locator()
    outcome, whole = outcome or RunOutcome(), outcome is None and part is None
    try:
        workflow.initialize()
        if links is not None:
            write_links(links, workflow.parser.get_parsed_content("catalogue"))
        workflow.run()
    except RuntimeError as error:  # MONAI wraps what its expressions raise
        if not isinstance(cause := cause_of(error), InputsFailedError):
            raise cause from None
        outcome.failed = cause
    outcome.left_out = workflow.parser.get_parsed_content("catalogue").left_out()
    document: RunDocument = workflow.parser.get_parsed_content("writer").document()
    workflow.finalize()
    return RunDocument.read(folder / "results.json") if whole else document


def _locator() -> ComponentLocator:
    """Finds targets; for a full name it does not look through all modules, which would import all that we hand out."""
    from monai.bundle import ComponentLocator

    class ShortNames(ComponentLocator):
        def get_component_module_name(self, name: str) -> list[str] | str | None:
            return None if "." in name else super().get_component_module_name(name)

    return ShortNames()


def _warn_of_normal(name: str, reason: str) -> None:
    logger.warning("The normal input %s is left out: %s", name, reason)
