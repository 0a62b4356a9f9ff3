# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Deploy: an operator for applications of the App SDK, and an application around it (extra ``deploy``).

``python -m monai_anomalyclip.deploy -i STUDY -o RESULTS -m BUNDLE`` reads the DICOM files of a folder with the App
SDK's loader, scores each series, and writes what ``predict`` writes for it. SEG and SR are this package's: the App
SDK's writers leave out empty frames and know no structured report with measurements.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.predictor import Predictor

try:
    from monai.deploy.conditions import CountCondition
    from monai.deploy.core import Application, ConditionType, Operator
    from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
    from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
except ImportError as error:  # the classes can be named and documented without it, but not made
    Application = Operator = object
    _missing: ImportError | None = error
else:
    _missing = None

__all__ = ["AnomalyApplication", "AnomalyOperator"]

logger = logging.getLogger(__name__)


def _require_sdk() -> None:
    if _missing is not None:
        raise ModuleNotFoundError(
            f"MONAI Deploy's App SDK cannot be imported ({_missing}): pip install monai-deploy-app-sdk."
        )


class AnomalyOperator(Operator):
    """Scores DICOM series that an application has selected. Research use only.

    Input ``study_selected_series_list``: of DICOMSeriesSelectorOperator. Output ``predictions`` (no receiver needed):
    series instance UID -> :class:`~monai_anomalyclip.prediction.Prediction`, for operators of one's own.

    Files are written below `output_folder`, in a folder for each series, numbered in the order of selection: series
    are not named by what stands in their headers. A series that cannot be scored does not stop the others; the run
    fails at its end.

    Args:
        fragment: the application.
        args: conditions of the App SDK.
        bundle: folder of a bundle, or the name of a shipped one.
        output_folder: for the results.
        outputs: kinds of files, as for ``predict``.
        preset: of intensities, such as "ct-brain".
        device: "cpu", "cuda", ...; default the first GPU, else the CPU.
        kwargs: ``name`` and others of the App SDK.

    Raises:
        ModuleNotFoundError: the App SDK is not installed.

    Example:
        >>> operator = AnomalyOperator(application, bundle="anomalyclip_ready", output_folder="out", name="anomaly")
        >>> application.add_flow(selector, operator, {("study_selected_series_list", "study_selected_series_list")})
    """

    def __init__(
        self,
        fragment: Any,
        *args: Any,
        bundle: str | Path,
        output_folder: str | Path,
        outputs: tuple[str, ...] = ("default",),
        preset: str = "auto",
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        _require_sdk()
        self.predictor = Predictor(bundle, device=device)
        self.output_folder = Path(output_folder)
        self.outputs = outputs
        self.preset = preset
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: Any) -> None:
        """Name input and output, for the App SDK."""
        spec.input("study_selected_series_list")
        spec.output("predictions").condition(ConditionType.NONE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Score what was selected, for the App SDK.

        Raises:
            RuntimeError: a series could not be scored, or none was selected.
        """
        selected = [
            chosen.series
            for study in op_input.receive("study_selected_series_list")
            for chosen in study.selected_series
        ]
        if not selected:
            raise RuntimeError("No series was selected.")
        predictions, failed = {}, 0
        for number, series in enumerate(selected, start=1):
            datasets = [instance.get_native_sop_instance() for instance in series.get_sop_instances()]
            try:
                prediction = self.predictor(datasets, preset=self.preset)
                prediction.save(self.output_folder / f"series_{number:02d}", self.outputs, name="series")
            except (ValueError, OSError) as error:
                failed += 1
                logger.error(f"Series {number} of {len(selected)} could not be scored: {error}")
                continue
            predictions[series.SeriesInstanceUID] = prediction
            logger.info(f"Series {number}: anomaly score {prediction.anomaly_score:.3f}. {RESEARCH_USE_ONLY}")
        op_output.emit(predictions, "predictions")
        if failed:
            raise RuntimeError(f"{failed} of {len(selected)} series could not be scored.")


class AnomalyApplication(Application):
    """Loader, selector and :class:`AnomalyOperator`. Folders come from the command line, as in every application.

    Example:
        >>> AnomalyApplication().run()
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _require_sdk()
        super().__init__(*args, **kwargs)

    def compose(self) -> None:
        """Connect the operators, for the App SDK."""
        context = Application.init_app_context(self.argv)
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        selector = DICOMSeriesSelectorOperator(self, name="selector")  # without rules: every series
        operator = AnomalyOperator(
            self, bundle=Path(context.model_path), output_folder=Path(context.output_path), name="anomaly"
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, operator, {("study_selected_series_list", "study_selected_series_list")})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    AnomalyApplication().run()
