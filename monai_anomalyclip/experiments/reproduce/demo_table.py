# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The matrix of methods and ablations that runs on a CPU in minutes, on synthetic pictures."""

from __future__ import annotations

from monai_anomalyclip.experiments.reproduce.experiment import METHODS, Experiment, Group, Table

__all__ = ["DEMO", "INDUSTRIAL_PHANTOMS", "MEDICAL_PHANTOMS"]

INDUSTRIAL_PHANTOMS = "industrial-phantoms"
"""What is tuned on: the datalist's section "training"."""

MEDICAL_PHANTOMS = ("endoscopy", "brain_mr", "head_ct", "chest_xray")
"""What is tested on: the classes of the datalist's section "testing"."""


def _ablation(title: str, default: str, rows: dict[str, str]) -> Group:
    """AnomalyCLIP as it is and with one overlay each, by title of the row."""
    experiments = [Experiment(f"{default} (default)", MEDICAL_PHANTOMS, INDUSTRIAL_PHANTOMS)]
    for name, overlay in rows.items():
        experiments.append(
            Experiment(name, MEDICAL_PHANTOMS, INDUSTRIAL_PHANTOMS, overlays=(f"experiments/{overlay}",))
        )
    return Group(title, tuple(experiments), means_only=True)


_METHODS = Group(
    "methods",
    tuple(
        Experiment(method.title, MEDICAL_PHANTOMS, INDUSTRIAL_PHANTOMS if method.tuned else None, method.name)
        for method in METHODS.values()
        if not method.full_shot
    ),
)

_MODULES = Group(
    "modules, each added to those before",
    (
        Experiment(
            "base: fixed words, CLIP's attention",
            MEDICAL_PHANTOMS,
            overlays=("experiments/fixed_words", "experiments/attention_qk"),
        ),
        Experiment("T1: + DPAM", MEDICAL_PHANTOMS, overlays=("experiments/fixed_words",)),
        Experiment(
            "T2: + object-agnostic prompts",
            MEDICAL_PHANTOMS,
            INDUSTRIAL_PHANTOMS,
            overlays=("experiments/no_deep_tokens",),
        ),
        Experiment("T3: + deep tokens", MEDICAL_PHANTOMS, INDUSTRIAL_PHANTOMS),
        Experiment(
            "T4: + four layers", MEDICAL_PHANTOMS, INDUSTRIAL_PHANTOMS, overlays=("experiments/demo/layers_3_4_5_6",)
        ),
    ),
    means_only=True,
)

DEMO = Table(
    "demo",
    "The demonstration's matrix, on synthetic phantoms",
    "Method, modules and settings, on the phantoms and with the tiny CLIP that the package carries.",
    (
        _METHODS,
        _MODULES,
        _ablation("attention", "vv", {kind: f"attention_{kind}" for kind in ("qq", "kk", "qk")}),
        _ablation("ensembles", "vv", {"qq+kk+vv": "attention_qq_kk_vv", "qk+qq+kk+vv": "attention_qk_qq_kk_vv"}),
        _ablation(
            "loss",
            "global and local",
            {
                "global": "loss_global",
                "local": "loss_local",
                "global and Dice": "loss_dice",
                "global and focal": "loss_focal",
            },
        ),
        _ablation("context", "unshared", {"shared": "shared_context"}),
        _ablation("prompt length", "12", {str(n): f"prompt_length_{n}" for n in (4, 8, 16)}),
        _ablation(
            "depth of the deep tokens",
            "4",
            {"1: none": "no_deep_tokens", "2": "demo/deep_depth_2", "3": "deep_depth_3"},
        ),
        _ablation("number of deep tokens", "4", {str(n): f"deep_length_{n}" for n in (1, 2, 8)}),
        _ablation(
            "layers",
            "6",
            {
                "5, 6": "demo/layers_5_6",
                "4, 5, 6": "demo/layers_4_5_6",
                "3, 4, 5, 6": "demo/layers_3_4_5_6",
            },
        ),
        _ablation(
            "abnormal word",
            "damaged",
            {word: f"words_{word}" for word in ("anomalous", "flawed", "defective", "blemished")},
        ),
    ),
    remark="synthetic pictures and a tiny CLIP of our own: it shows that everything runs, not how methods compare",
    keep_features=True,
    max_epochs=5,
    demo=True,
)
"""Seven methods and eleven ablations."""
