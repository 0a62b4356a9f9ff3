# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from . import (
    app,
    archive,
    bundles,
    cli,
    data,
    demo,
    engines,
    experiments,
    export,
    federated,
    handlers,
    inferers,
    label,
    losses,
    metrics,
    networks,
    reference,
    scale,
    transforms,
    weights,
    writers,
)
from .data.inputs import load_input
from .inference import predict
from .networks.anomaly_clip import AnomalyCLIP
from .predictor import Predictor

__version__: str
RESEARCH_USE_ONLY: str

__all__ = [
    "RESEARCH_USE_ONLY",
    "AnomalyCLIP",
    "Predictor",
    "__version__",
    "app",
    "archive",
    "bundles",
    "cli",
    "data",
    "demo",
    "engines",
    "experiments",
    "export",
    "federated",
    "handlers",
    "inferers",
    "label",
    "load_input",
    "losses",
    "metrics",
    "networks",
    "predict",
    "reference",
    "scale",
    "transforms",
    "weights",
    "writers",
]
