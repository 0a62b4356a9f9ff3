# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Slice-wise inference: frames and volumes in, anomaly maps in their own geometry out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from torch import Tensor
from tqdm import tqdm

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.networks.devices import FittingBatches, autocast, check_precision
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map, smooth_anomaly_map
from monai_anomalyclip.transforms.clip_preprocess import clip_normalize_resize, image_size_pair
from monai_anomalyclip.transforms.intensity import check_unit_range

if TYPE_CHECKING:
    from typing_extensions import Self

    from monai_anomalyclip.inferers.views import Views

__all__ = ["AnomalySliceInferer"]

_NUMBERS = ("anomaly_score", "anomaly_margin")  # of each slice; the second where the network gives it


class AnomalySliceInferer(Inferer):
    """Run an anomaly network on frames, and on volumes slice by slice, each slice shown as a radiologist sees it.

    A slice is resized to the network's input, repeated to three channels and normalised on the network's device; the
    map is smoothed at the network's resolution and resized to the slice's own size. At most ``slice_batch_size``
    slices are on the device at a time, and the maps of as many before them, whatever the volume's size. Where they do
    not fit into its memory, half as many are shown at once from there on.

    Args:
        image_size: the network's input size, a multiple of its patch size.
        slice_axis: spatial axis along which volumes are cut, or ``"auto"``: the only axis of length 1 if there is one,
            else the axis of largest spacing (see :meth:`monai_anomalyclip.data.slicing.SliceView.from_affine`).
        slice_batch_size: how many slices the network sees at once.
        sigma: standard deviation of the smoothing Gaussian, in pixels of the network's input; 0 for none.
        progress: show a progress bar over the slices of a volume.
        precision: "float32", "bfloat16", "float16", or "auto" (see
            :func:`~monai_anomalyclip.networks.resolve_precision`). Smoothing and resizing are always in float32.
        scales: sizes at which a slice is looked at for its map, relative to `image_size` (see :class:`.Views`).
        flip: also look at it mirrored.

    Raises:
        ValueError: an argument is out of range.

    Example::

        output = AnomalySliceInferer(network.image_size)(load_input("brain.nii.gz")[None], network)
        output["anomaly_map"].shape  # (1, 1, X, Y, Z)
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 518,
        slice_axis: int | str = "auto",
        slice_batch_size: int = 8,
        sigma: float = 4.0,
        progress: bool = False,
        precision: str = "float32",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        super().__init__()
        self.views: Views | None = None
        if flip or tuple(scales) != (1.0,):
            from monai_anomalyclip.inferers.views import Views  # most runs look at images as they are

            views = Views(scales, flip)
            self.views = None if views.plain else views
        check_precision(precision)
        if slice_batch_size < 1:
            raise ValueError(f"slice_batch_size must be at least 1, got {slice_batch_size}.")
        if not sigma >= 0:
            raise ValueError(f"sigma must be 0 or more pixels, got {sigma}.")
        if slice_axis not in ("auto", 0, 1, 2):
            raise ValueError(f"slice_axis must be 0, 1, 2 or 'auto', got {slice_axis!r}.")
        self.image_size = image_size_pair(image_size)
        self.slice_axis = slice_axis
        self.slice_batch_size = slice_batch_size
        self.sigma = sigma
        self.progress = progress
        self.precision = precision
        self._fitting = FittingBatches(slice_batch_size)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Score frames or volumes.

        Args:
            inputs: frames (B, 3, H, W) or (B, 1, H, W), or volumes (B, 1, X, Y, Z), in [0, 1], or uint8, which stands
                for it in steps of 1/255 and gives the same results. The affine of a MetaTensor (one for all, or one
                per item) tells a volume's orientation; without one it is the identity. With the meta entry
                ``native_slices`` volumes are stacks (B, 1 or 3, X columns, Y rows, Z frames), each frame scored as it
                is stored, whatever the affine and `slice_axis` say.
            network: anything with ``predict(images) -> {"anomaly_map": (b, 1, h, w), "anomaly_score": (b,)}``, and
                where it has one ``"anomaly_margin": (b,)``; also wrapped in DistributedDataParallel.
            args: passed on to ``predict``.
            kwargs: passed on to ``predict``.

        Returns:
            ``"anomaly_map"``: (B, 1, H, W) or (B, 1, X, Y, Z), float32 on the CPU, with the inputs' metadata.
            ``"anomaly_score"``: (B, 1) for frames, (B, number of slices) for volumes.
            ``"anomaly_margin"``: like the score, the difference of the logits; only of a network that gives it.

        Raises:
            ValueError: wrong rank or number of channels, values out of [0, 1], or volumes of one batch that are cut
                into different numbers of slices.
        """
        with _Shown(network, self.precision, self.views, inputs.device, args, kwargs) as shown:
            return self._score(inputs, shown)

    @torch.no_grad()
    def together(self, pictures: Sequence[Tensor], network: Callable[..., Any]) -> list[dict[str, Tensor]]:
        """Score pictures of any sizes in batches of ``slice_batch_size``.

        On a CPU, where one picture fills the cores, each is shown alone, so that its numbers do not depend on its
        company; on a GPU they do by rounding.

        Args:
            pictures: each (3, H, W) or (1, H, W), as for a call.
            network: as for a call.

        Returns:
            for each what a call returns for ``picture[None]``.

        Raises:
            ValueError: as for a call.
        """
        results = []
        with _Shown(network, self.precision, self.views, pictures[0].device) as shown:
            step = 1 if shown.device.type == "cpu" else self.slice_batch_size
            for start in range(0, len(pictures), step):
                batch = [_checked(picture[None]) for picture in pictures[start : start + step]]
                ready = [clip_normalize_resize(picture, self.image_size, shown.device) for picture in batch]
                maps, numbers = self._predicted(torch.cat(ready), shown)
                waiting = [
                    _Results(
                        slice(0, 1),
                        resize_anomaly_map(maps[index : index + 1], picture.shape[-2:]),
                        numbers[:, index : index + 1],
                    )
                    for index, picture in enumerate(batch)
                ]
                for picture, one in zip(pictures[start : start + step], waiting, strict=True):
                    found, values = one.arrived()
                    results.append(_answer(picture, found, values[:, :, None]))
        return results

    def _score(self, inputs: Tensor, shown: _Shown) -> dict[str, Tensor]:
        images = _checked(inputs)
        if images.ndim == 4:
            anomaly_map, slice_numbers = self._score_slices(images, shown)
            numbers = slice_numbers[:, :, None]
        else:
            views = [self._view(inputs, item) for item in range(len(images))]
            if len({view.n_slices for view in views}) > 1:
                raise ValueError(
                    f"The volumes of this batch have {[view.n_slices for view in views]} slices along their slice "
                    "axes: use a batch size of 1 or give slice_axis."
                )
            found = [
                self._score_slices(view.to_slices(image), shown) for view, image in zip(views, images, strict=True)
            ]
            # Of one volume a view: slice after slice in memory, as writers want it.
            volumes = [view.from_slices(maps) for view, (maps, _) in zip(views, found, strict=True)]
            anomaly_map = volumes[0][None] if len(volumes) == 1 else torch.stack(volumes)
            numbers = torch.stack([values for _, values in found], dim=1)
        return _answer(inputs, anomaly_map, numbers)

    def _score_slices(self, slices: Tensor, shown: _Shown) -> tuple[Tensor, Tensor]:
        """Maps (D, 1, H, W) and numbers (scores and, where the network gives them, margins; D), on the CPU."""
        count, _, *native = slices.shape
        maps = torch.empty(count, 1, *native)
        numbers = torch.empty(0, count)
        waiting: _Results | None = None
        with tqdm(total=count, unit="slice", leave=False, disable=not self.progress or count == 1) as bar:
            for start in range(0, count, self.slice_batch_size):
                chosen = slice(start, start + self.slice_batch_size)
                smooth, given = self._predicted(
                    clip_normalize_resize(slices[chosen], self.image_size, shown.device), shown
                )
                if start == 0:
                    numbers = torch.empty(len(given), count)
                found = _Results(chosen, resize_anomaly_map(smooth, native), given)
                # A GPU works on this batch while the results of the one before are put in their place.
                if waiting is not None:
                    waiting.put_into(maps, numbers)
                waiting = found
                bar.update(len(smooth))
            if waiting is not None and count <= self.slice_batch_size:
                return waiting.arrived()
            if waiting is not None:
                waiting.put_into(maps, numbers)
        return maps, numbers

    def _predicted(self, batch: Tensor, shown: _Shown) -> tuple[Tensor, Tensor]:
        """Smoothed maps (b, 1, h, w) and numbers (2 or 1, b), on the device."""

        def smooth(part: Tensor) -> tuple[Tensor, Tensor]:
            one = shown(part)
            numbers = torch.stack([one[name].float() for name in _NUMBERS if name in one])
            return smooth_anomaly_map(one["anomaly_map"], self.sigma), numbers

        maps, numbers = zip(*self._fitting(smooth, batch), strict=True)
        return torch.cat(maps), torch.cat(numbers, dim=1)

    def _view(self, inputs: Tensor, item: int) -> SliceView:
        if _native(inputs):
            return SliceView.native(inputs.shape[2:])
        affine = inputs.affine if isinstance(inputs, MetaTensor) else MetaTensor.get_default_affine()
        return SliceView.from_affine(affine[item] if affine.ndim == 3 else affine, inputs.shape[2:], self.slice_axis)


class _Shown:
    """A network with its text side encoded once for all batches that it is shown, in the chosen precision and views."""

    def __init__(
        self,
        network: Any,
        precision: str,
        views: Views | None,
        default: torch.device,
        args: Sequence[Any] = (),
        kwargs: Any = None,
    ) -> None:
        self._network: Any = getattr(network, "module", network)
        self._precision, self._views = precision, views
        self._patch = getattr(self._network, "patch_size", None)
        if self._patch is None and views is not None:
            raise ValueError("scales and flip need a network that takes images of any size.")
        self._given = tuple(args), dict(kwargs or {})
        self.device = _device_of(network, default)

    def __enter__(self) -> Self:
        self._fixed = getattr(self._network, "fixed_prompts", nullcontext)()
        self._fixed.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._fixed.__exit__(*error)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        with autocast(self._precision, self.device):
            result = self._predict(batch)
            if self._patch is not None and self._views is not None:
                mean = self._views.mean_map(batch, result["anomaly_map"], self._map_of, self._patch)
                result = {**result, "anomaly_map": mean}
        return result

    def _predict(self, batch: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = self._network.predict(batch, *self._given[0], **self._given[1])
        return result

    def _map_of(self, batch: Tensor) -> Tensor:
        return self._predict(batch)["anomaly_map"]


class _Results:
    """Maps and numbers of a batch, on their way from a GPU to the CPU while it goes on computing."""

    def __init__(self, chosen: slice, maps: Tensor, numbers: Tensor) -> None:
        self._chosen = chosen
        self._arrived: torch.cuda.Event | None = None
        if maps.device.type == "cuda":
            stream = torch.cuda.current_stream(maps.device)  # which may not be the current device
            maps, numbers = (
                torch.empty_like(t, device="cpu", pin_memory=True).copy_(t, non_blocking=True) for t in (maps, numbers)
            )
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(stream)
        self._maps, self._numbers = maps, numbers

    def arrived(self) -> tuple[Tensor, Tensor]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._maps.cpu(), self._numbers.cpu()

    def put_into(self, maps: Tensor, numbers: Tensor) -> None:
        maps[self._chosen], numbers[:, self._chosen] = self.arrived()


def _answer(inputs: Tensor, anomaly_map: Tensor, numbers: Tensor) -> dict[str, Tensor]:
    if isinstance(inputs, MetaTensor):
        anomaly_map = MetaTensor(anomaly_map).copy_meta_from(inputs)
    return {"anomaly_map": anomaly_map, **dict(zip(_NUMBERS, numbers, strict=False))}


def _native(inputs: Tensor) -> bool:
    # After collation a meta entry holds one value per item.
    return isinstance(inputs, MetaTensor) and bool(torch.as_tensor(inputs.meta.get("native_slices", 0)).all())


def _checked(inputs: Tensor) -> Tensor:
    """The inputs as a plain tensor, after their shape and range were looked at."""
    frames = inputs.ndim == 4 and inputs.shape[1] in (1, 3)
    volumes = inputs.ndim == 5 and (inputs.shape[1] == 1 or (inputs.shape[1] == 3 and _native(inputs)))
    if not (frames or volumes) or inputs.numel() == 0:
        raise ValueError(
            "Expected frames (B, 3, H, W) or (B, 1, H, W) or volumes of one channel (B, 1, X, Y, Z), got shape "
            f"{tuple(inputs.shape)}."
        )
    images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
    if images.dtype != torch.uint8:
        check_unit_range(images)
    return images


def _device_of(network: Any, default: torch.device) -> torch.device:
    parameters = network.parameters() if isinstance(network, torch.nn.Module) else iter(())
    parameter = next(parameters, None)
    return default if parameter is None else parameter.device
