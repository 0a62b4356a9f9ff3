# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The face for images: :class:`Predictor` loads a bundle once and scores many, with results in memory."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor
from tqdm import tqdm

from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.bundles.shipped import beside_overlays, bundle_parser, inference_config
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.data.sources import InputPart, ReadOptions
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.transforms import ScaleIntensityForCLIP
from monai_anomalyclip.writers.record import Compared, Fused

if TYPE_CHECKING:
    from typing_extensions import Self

    from monai_anomalyclip.data.in_memory import GivenImage
    from monai_anomalyclip.prediction import Prediction
    from monai_anomalyclip.reference.reference_network import ReferenceInferer
    from monai_anomalyclip.reference.score_calibration import NormalScores

__all__ = ["Predictor"]


class Predictor:
    """Scores images with the network of a bundle. Research use only.

    The network and its prompts are loaded once. Calls from several threads wait for each other. As a context manager
    it gives the device's memory back at the end.

    Args:
        bundle: folder of a bundle, or the name of a shipped one; default ``bundles/anomalyclip``.
        prompts: a prompt checkpoint to use instead of the bundle's.
        clip: weights of CLIP in any form (see :mod:`monai_anomalyclip.networks.clip_weights`), instead of the bundle's.
        reference: a file that ``monai-anomalyclip reference build`` made of normal images: images are compared with
            them, in place of AnomalyCLIP, or, where `bundle` is given, beside it.
        device: "cpu", "cuda", "cuda:1", "mps", ...; default the first GPU, else the CPU.
        precision: "float32", "bfloat16", "float16" or "auto" (see
            :func:`~monai_anomalyclip.networks.resolve_precision`); None for the bundle's.
        overrides: further ids of the bundle's ``inference.json``, such as ``sigma=2.0``.

    Raises:
        FileNotFoundError: there is no such bundle, or it has no prompts.
        ValueError: the prompts belong to another backbone.

    Example:
        >>> from monai_anomalyclip import Predictor
        >>> predictor = Predictor("bundles/anomalyclip_demo")
        >>> prediction = predictor("frame.png")
        >>> prediction.anomaly_score, prediction.mask(0.5).sum()
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        prompts: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        precision: str | None = "auto",
        reference: str | os.PathLike[str] | None = None,
        clip: str | os.PathLike[str] | None = None,
        **overrides: Any,
    ) -> None:
        config = inference_config(bundle, with_reference=reference is not None)
        if reference is not None:
            overrides = {"reference": Path(reference), **overrides}
        parser = bundle_parser(
            config,
            [] if reference is None else beside_overlays(bundle),
            prompts=None if prompts is None else Path(prompts),
            **{"backbone#pretrained": None if clip is None else Path(clip)},
            device=None if device is None else str(device),
            precision=precision,
            **overrides,
        )
        self.bundle = config.parents[1]
        try:
            self._build(parser)
        except RuntimeError as error:  # MONAI wraps what its expressions raise
            raise cause_of(error) from None
        self._lock = threading.Lock()

    def _build(self, parser: ConfigParser) -> None:
        self.prompts: str | None = parser.get_parsed_content("prompts")
        self.device = torch.device(parser.get_parsed_content("device"))
        self.reading: dict[str, Any] = parser.get_parsed_content("reading")
        self.threshold = float(parser.get_parsed_content("resolved_threshold"))
        self.network: torch.nn.Module = parser.get_parsed_content("network").eval()
        for step in ("check_prompts", "load_prompts") if self.prompts else ():
            parser.get_parsed_content(step)
        self.normals: NormalScores | None = parser.get_parsed_content("normals", default=None)
        self.fusion: str | None = parser.get_parsed_content("fusion", default=None)
        self.inferer: AnomalySliceInferer | ReferenceInferer = parser.get_parsed_content("inferer")
        self.inferer.progress = False

    def __call__(self, image: Any, **reading: Any) -> Prediction:
        """Score one image.

        Args:
            image: a path, a folder with one input, a NumPy array (H, W), (H, W, 3) or (X, Y, Z), a tensor or
                MetaTensor (1 or 3, H, W) or (1, X, Y, Z), a PIL, nibabel or SimpleITK image, a pydicom dataset or a
                list of them (see :mod:`monai_anomalyclip.data.in_memory`).
            reading: fields of :class:`~monai_anomalyclip.data.ReadOptions`, such as ``preset="ct-brain"``.

        Raises:
            UnreadableInputError: it cannot be read, or is more than one input.
            TypeError: it is no image, or there is no such option.
            ValueError: its shape or values are not those of an image.
        """
        from monai_anomalyclip.data.in_memory import given_image  # folders and files alone need none of it

        options = ReadOptions(**{**self.reading, **reading})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            given = given_image(image, options)
            scale = ScaleIntensityForCLIP(preset=options.preset)
            parts = [self._score(part, scale) for part in given.parts]
        return self._prediction(given, parts, [str(warning.message) for warning in caught])

    def each(self, path: str | os.PathLike[str], **reading: Any) -> Iterator[tuple[str, Prediction]]:
        """Score every input of a folder, one at a time: its name and its prediction.

        Args:
            path: a file or a folder of studies.
            reading: as for a call.

        Raises:
            UnreadableInputError: an input cannot be read.
        """
        options = ReadOptions(**{**self.reading, **reading})
        for name, source in InputCatalogue(path, options=options).sources.items():
            yield name, self(InputPart(source), **reading)

    def calibrate_on(
        self, normals: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, grouping: str = "input",
        exclude: str | os.PathLike[str] | None = None, **reading: Any,
    ) -> dict[str, str]:  # fmt: skip
        """Score normal inputs, so that the scores of others get p-values, and keep that beside the prompts.

        ``models/model.normals.json`` is replaced; it holds numbers and keyed hashes, no names. From then on this
        object, ``predict`` and the bundle use it, wherever network and prompts are the same ones.

        Args:
            normals: files or folders with normal inputs alone: at least 4, better 32, of the kind that will be scored
                and read by the same preset.
            grouping: "input", or "folder" where each patient has a folder; DICOM headers tell patients apart.
            exclude: a folder below that is not read.
            reading: as for a call.

        Returns:
            reasons by the names of inputs that could not be read.

        Raises:
            ValueError: there are no prompts to keep it beside, the network has no margins, or nothing could be read.
            OSError: the folder of the prompts cannot be written to.
        """
        from monai_anomalyclip.data.errors import failure_reason
        from monai_anomalyclip.reference.normals import group_of
        from monai_anomalyclip.reference.score_calibration import NormalScores, model_digest, normals_path

        if self.prompts is None or not hasattr(self.network, "load_prompts"):
            raise ValueError("Calibrating keeps its result beside the prompts, and this method has none.")
        options = ReadOptions(**{**self.reading, **reading})
        scores, failed = NormalScores(model_digest(self.network, self.prompts)), {}
        self.normals = None
        catalogue = InputCatalogue(normals, exclude=exclude, options=options)
        margins: list[torch.Tensor] = []
        for item in tqdm(catalogue.items(), desc="Scoring normals", unit="input"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of single normals
                    image, output = self._score(item["image"], ScaleIntensityForCLIP(preset=options.preset))
                margins = [*margins, output["anomaly_margin"]] if item["part"] else [output["anomaly_margin"]]
                if item["part"] + 1 == item["parts"]:
                    group = group_of(item["image"].source, grouping)
                    alone = group is not None and group.startswith("input ")  # counts by its content
                    scores.add(image, torch.cat([one.flatten() for one in margins]), None if alone else group)
            except (OSError, ValueError, RuntimeError) as error:
                failed[item["name"]] = failure_reason(error, item)
        if not scores.normals:
            raise ValueError(f"None of the {len(catalogue.sources)} normal inputs could be read: {failed}")
        scores.save(normals_path(self.prompts))
        self.normals = scores
        return failed

    def close(self) -> None:
        """Give the device's memory back; the predictor goes on working on the CPU."""
        with self._lock:
            self.network.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.device = torch.device("cpu")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score(self, part: Any, scale: ScaleIntensityForCLIP) -> tuple[MetaTensor, dict[str, Any]]:
        image = part.load() if isinstance(part, InputPart) else scale(part)  # readers scale what they read
        assert isinstance(image, MetaTensor)
        with self._lock, torch.inference_mode():
            output: dict[str, Any] = self.inferer(image[None], self.network)
        if self.normals is not None and "anomaly_margin" in output:
            from monai_anomalyclip.reference.score_calibration import merged

            beside = {name: output[name][0] for name in ("compared", "doubts") if name in output}
            both = merged(self.normals.compare(image, output["anomaly_margin"]), beside, self.fusion)
            output |= {name: [value] if isinstance(value, str) else value for name, value in both.items()}
        return image, output

    def _prediction(
        self, given: GivenImage, parts: list[tuple[MetaTensor, dict[str, Any]]], caught: list[str]
    ) -> Prediction:
        from monai_anomalyclip.prediction import Prediction

        image, output = parts[0]
        maps = output["anomaly_map"][0]
        if len(parts) > 1:  # a film, of which frames are the last axis
            image = MetaTensor(torch.cat([part.as_tensor() for part, _ in parts], dim=-1), meta=image.meta)
            maps = MetaTensor(torch.cat([torch.as_tensor(found["anomaly_map"][0]) for _, found in parts], dim=-1))
            maps.meta = image.meta
        numbers = {
            name: np.concatenate([found[name].flatten().numpy() for _, found in parts])
            for name in ("anomaly_score", "anomaly_margin")
            if name in output
        }
        record = json.loads(image.meta.get("intensity") or "{}")
        farthest = max((found for _, found in parts), key=_suspicion)
        doubts = [text for _, found in parts for text in found.get("doubts", [""])[0].splitlines()]
        sentences = [*record.get("warnings", ()), image.meta.get("notes") or "", *caught, *doubts]
        return Prediction(
            map=maps,
            scores=numbers["anomaly_score"],
            margins=numbers.get("anomaly_margin"),
            p_value=_number(farthest.get("p_value")),
            compared=tuple(Compared(**one) for one in json.loads(farthest.get("compared", ["[]"])[0])),
            fused=None if "fused" not in farthest else Fused(**json.loads(farthest["fused"][0])),
            threshold=self.threshold,
            warnings=tuple(dict.fromkeys(text for text in sentences if text)),
            image=image,
            _given=given,
            _view=self._view(image),
            _model=self,
        )

    def _view(self, image: MetaTensor) -> SliceView | None:
        if image.ndim == 3:
            return None
        if image.meta.get("native_slices"):
            return SliceView.native(image.shape[1:])
        return SliceView.from_affine(image.affine, image.shape[1:], self.inferer.slice_axis)


def _suspicion(found: dict[str, Any]) -> tuple[float, float]:
    """What parts of a film are ranked by: the farthest one's p-value is the film's."""
    return float(found.get("anomaly_margin", torch.zeros(1)).max()), float(found["anomaly_score"].max())


def _number(value: torch.Tensor | None) -> float | None:
    """A single number; None where there is none."""
    return None if value is None or bool(value.isnan().any()) else float(value)
