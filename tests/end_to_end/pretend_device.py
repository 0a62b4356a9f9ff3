# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A device that is none: tensors that say they are on cuda:0, hold CPU data and refuse to mix with others.

What is moved between the device and the host is counted, and so is every time that the host would have to wait for a
GPU: when it asks for a value, or for something whose size depends on values.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["PretendDevice", "PretendTensor"]

_DEVICE = torch.device("cuda:0")
_aten = torch.ops.aten
_VALUES_ARE_ASKED_FOR = {  # operators that a GPU has to finish all its work for
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten.unique_consecutive.default,
    _aten._unique2.default,
}

_INDEXED = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default)


class PretendTensor(Tensor):
    """A tensor that says it is on cuda:0; `held` has its data."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("meta"),  # a true GPU's would start CUDA
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """What it says."""
        return _DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """What it says."""
        return True

    def __getitem__(self, index: Any) -> Any:
        """With a list as a tensor of the host: torch would make one of no data."""
        return super().__getitem__(_make_tensor(index) if isinstance(index, list) else index)

    def tolist(self) -> Any:
        """As a copy to the host."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise AssertionError(f"{func} was called outside of the pretend device's block.")


class PretendDevice(TorchDispatchMode):
    """Within the block cuda:0 is there.

    Attributes:
        waits: how often each operator would have waited for the device.
        to_host: tensors that were copied to the host, each of which waits unless it goes to pinned memory.
        to_device: tensors that were copied to the device.
    """

    # The one key under which torch takes a mode's word for it that there is a device, instead of starting CUDA.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.to_host = 0
        self.to_device = 0
        self.kernels: Counter[str] = Counter()
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> PretendDevice:
        for target, name, replacement in (
            (torch.cuda, "current_stream", lambda *_: mock.Mock()),
            (torch.cuda, "Event", lambda *_, **__: _Event(self)),
            (torch.cuda, "mem_get_info", lambda *_: (10**9, 10**9)),
            (torch, "tensor", _tensor),
            (Tensor, "to", lambda *args, **kwargs: self._to(*args, **kwargs)),
            (Tensor, "pin_memory", lambda tensor: tensor),
            # What is made in it has no version, which a tensor that is none of torch's own must have.
            (torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()),
            (torch.nn.Module, "to", lambda *args, **kwargs: _module_to(*args, **kwargs)),
        ):
            self._patches.enter_context(mock.patch.object(target, name, replacement))
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._patches.close()

    def forget(self) -> None:
        """Count from here on."""
        self.waits.clear()
        self.kernels.clear()
        self.to_host = self.to_device = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
        wanted = kwargs.get("device")
        on_device = bool(ours) if wanted is None else torch.device(wanted).type != "cpu"  # C++ takes it for "meta"
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        if func in (_aten._pin_memory.default,):
            return args[0]
        if func is _aten.is_pinned.default:
            return False
        if func is _aten.copy_.default:
            return self._copied(*args, **kwargs)
        crosses = func in (_aten._to_copy.default,) and on_device != bool(ours)
        if crosses and on_device:
            self.to_device += 1
        elif crosses:
            self.to_host += 1
            self.waits["copy to the host"] += 1
        elif ours and func in _INDEXED:  # whose indices may lie on the host; torch copies them
            indices = [index for index in args[1] if index is not None and not isinstance(index, PretendTensor)]
            self.to_device += len(indices)
            self._refuse_mixture(func, [args[0], *args[2:3]])
        elif ours:
            self._refuse_mixture(func, tensors)
        if ours and func in _VALUES_ARE_ASKED_FOR:
            self.waits[str(func)] += 1
        if ours and func in _INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1]):
            self.waits["index by a mask"] += 1
        if ours:
            self.kernels[str(func)] += 1
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not on_device:
            return result
        # What an operator changes in place and returns is the tensor that was given.
        known = {id(tensor.held): tensor for tensor in ours}
        return tree_map(
            lambda value: known.get(id(value), PretendTensor(value)) if isinstance(value, Tensor) else value, result
        )

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tensor.to: its own would start CUDA before any mode is asked."""
        places = [index for index, value in enumerate(args) if isinstance(value, str | torch.device | Tensor)]
        given = args[places[0]] if places else kwargs.pop("device", None)
        wanted = given.device if isinstance(given, Tensor) else tensor.device if given is None else torch.device(given)
        if isinstance(given, Tensor):
            kwargs["dtype"] = given.dtype
        rest = [value for index, value in enumerate(args) if index not in places]
        ours = isinstance(tensor, PretendTensor)
        if wanted.type == "cuda" and not ours:
            self.to_device += 1
            return PretendTensor(_to(torch.as_tensor(tensor).detach(), *rest, **kwargs), tensor.requires_grad)
        if ours and wanted.type == "cpu":
            self.to_host += 1
            self.waits["copy to the host"] += 1
            return _to(tensor.held, *rest, **kwargs)  # type: ignore[attr-defined]
        return _to(tensor, *rest, **kwargs) if rest or kwargs else tensor

    def _copied(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        crosses = isinstance(target, PretendTensor) != isinstance(source, PretendTensor)
        if crosses and isinstance(target, PretendTensor):
            self.to_device += 1
        elif crosses:
            self.to_host += 1
            if not non_blocking:
                self.waits["copy to the host"] += 1
        _held(target).copy_(_held(source))
        return target

    def _refuse_mixture(self, func: Any, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, PretendTensor) and tensor.ndim:
                raise RuntimeError(
                    f"{func}: expected all tensors to be on cuda:0, one {tuple(tensor.shape)} is on the CPU."
                )


class _Event:
    """What torch.cuda.Event would be; waiting for one is counted apart: it is for work that was done before."""

    def __init__(self, device: PretendDevice) -> None:
        self._device = device

    def record(self, *_: Any) -> None:
        """Nothing is to be remembered: all is done at once."""

    def synchronize(self) -> None:
        self._device.waits["event"] += 1


_make_tensor = torch.tensor
_to = Tensor.to


def _tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    made = _make_tensor(data, **kwargs)
    return made if device is None else made.to(device)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


@contextlib.contextmanager
def pretend_device() -> Iterator[PretendDevice]:
    """A block in which cuda:0 is there."""
    with PretendDevice() as device:
        yield device


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """A module with its parameters and buffers on the device."""
    return _module_to(module, "cuda")


def _module_to(module: torch.nn.Module, device: Any = None, *_: Any) -> torch.nn.Module:
    """Module.to a device, with parameters of their own in the place of others."""
    there = torch.device(device).type == "cuda"
    seen: dict[int, torch.nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None and isinstance(parameter, PretendTensor) != there:
                plain = parameter.detach()
                value = PretendTensor(plain, parameter.requires_grad) if there else _held(plain)
                other = seen.setdefault(id(parameter), torch.nn.Parameter(value, parameter.requires_grad))
                part._parameters[name] = other
        for name, buffer in list(part._buffers.items()):
            if buffer is not None and isinstance(buffer, PretendTensor) != there:
                part._buffers[name] = PretendTensor(buffer) if there else _held(buffer)
    return module
