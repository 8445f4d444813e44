"""Count the operations of a computation, their FLOPs and bytes, and the memory that autograd keeps for backward.

Counts do not depend on the load of the machine and need no values: on fake tensors
(:class:`torch._subclasses.fake_tensor.FakeTensorMode`), which take no memory, a step of any size is counted in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

_NO_WORK = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten._local_scalar_dense,
    aten._unsafe_view,  # a view whose schema declares no alias
}
_UNREAD = {
    *(aten.copy_, aten.fill_, aten.zero_, aten._foreach_copy_, aten._foreach_zero_),
    *(aten.bernoulli_, aten.exponential_, aten.normal_, aten.random_, aten.uniform_),
    *(aten.zeros_like, aten.ones_like, aten.full_like, aten.rand_like, aten.randn_like),
    *(aten.new_zeros, aten.new_ones, aten.new_full),
}
"""Operations that do not read their first argument: they overwrite it, or only take its shape."""
_COPIES = {aten._to_copy, aten.copy_}
_ATTENTION_ON_CPU = (
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
)


@dataclass(frozen=True)
class Operation:
    """One dispatched operation that does work, i.e. is neither a view nor an allocation.

    Attributes:
        name: name in PyTorch with the overload, e.g. `aten.mm.default`.
        flops: floating-point operations of products and convolutions; 0 for other operations, which memory bandwidth
            bounds.
        bytes: bytes read and written, as if nothing stayed in a cache.
        dtype: dtype of its first floating-point input, in which products are computed; float32 if there is none.
    """

    name: str
    flops: int
    bytes: int
    dtype: torch.dtype


@dataclass
class Counts:
    """The counted operations.

    Attributes:
        operations: counted operations, in the order of their calls.
        host_reads: names of operations at which the host waits for the device: it reads a number, asks how many
            entries are not zero, or copies to or from the device without `non_blocking`.
    """

    operations: list[Operation] = field(default_factory=list)
    host_reads: list[str] = field(default_factory=list)

    @property
    def flops(self) -> int:
        """FLOPs of all operations."""
        return sum(operation.flops for operation in self.operations)

    @property
    def bytes(self) -> int:
        """Bytes read and written by all operations."""
        return sum(operation.bytes for operation in self.operations)


class OperationCounter(TorchDispatchMode):
    """Counts the operations on one device within its context.

    Values that the host reads from fake tensors are made up: the result of `any()` is False, every other boolean is
    True, a floating-point number is `value`, and an integer is 0. A mask selects nothing.

    Args:
        device: device whose operations are counted, including copies from and to it.
        value: what the host reads for every floating-point number of fake tensors.

    Attributes:
        counts: counts so far; may be replaced to start a new count.
    """

    def __init__(self, device: torch.device | str = "cpu", value: float = 0.2) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()
        self._device = torch.device(device)
        self._value = value

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run and count one operation."""
        kwargs = dict(kwargs or {})
        if func.overloadpacket is aten._pin_memory and isinstance(args[0], FakeTensor):
            return args[0]
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            out = self._make_up_result(func, args)
        if func.overloadpacket is aten.any:
            out.nfpi_reads_false = True  # not True as other booleans: checks call any() to look for infinity or NaN
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        tensors = [*inputs, *(value for value in tree_leaves(out) if isinstance(value, Tensor))]
        on_device = [tensor.device.type == self._device.type for tensor in tensors]
        if not any(on_device):
            return out
        if self._device.type != "cpu" and _makes_host_wait(func, args, kwargs, all(on_device)):
            self.counts.host_reads.append(str(func))
        if not _does_work(func):
            return out
        dtype = next((tensor.dtype for tensor in inputs if tensor.is_floating_point()), torch.float32)
        count_flops = flop_registry.get(func.overloadpacket)
        if count_flops is not None:
            flops = count_flops(*args, **kwargs, out_val=out)
        else:
            flops = _count_attention_flops(func, args)
        self.counts.operations.append(Operation(str(func), flops, _count_moved_bytes(func, args, kwargs, out), dtype))
        return out

    def _make_up_result(self, func: OpOverload, args: Sequence[Any]) -> Any:
        """Make up the result of an operation whose values or shape depend on data that fake tensors lack."""
        packet, tensor = func.overloadpacket, args[0]
        if packet is aten._local_scalar_dense:
            if tensor.dtype is torch.bool:
                return not hasattr(tensor, "nfpi_reads_false")
            return self._value if tensor.is_floating_point() else 0
        if packet is aten.nonzero:
            return tensor.new_empty(0, tensor.dim(), dtype=torch.int64)
        if packet is aten.index:
            indices: list[Tensor | None] = []
            for index in args[1]:
                # other index tensors become empty too, as all of them are broadcast together
                nothing = None if index is None else index.new_empty(0, dtype=torch.int64)
                indices += [nothing] * index.dim() if _is_mask(index) else [nothing]
            return func(tensor, indices)
        if packet is aten._unique2:
            return tensor.new_empty(1), torch.empty_like(tensor, dtype=torch.int64), tensor.new_empty(1).long()
        if packet is aten.bincount:
            return tensor.new_empty(1)
        if packet is aten.equal:
            return True
        raise NotImplementedError(f"operation counter: no value is known for {func} on fake tensors")


def _does_work(func: OpOverload) -> bool:
    """Return whether an operation does work on its device, i.e. is no view, no allocation and no read by the host."""
    if func.namespace == "prim" or func.overloadpacket in _NO_WORK:
        return False
    aliases = [result.alias_info for result in func._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


def _makes_host_wait(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], one_device: bool) -> bool:
    """Return whether the host waits for the device in an operation."""
    packet = func.overloadpacket
    if packet in _COPIES:
        position = 2 if packet is aten.copy_ else len(args)  # index of non_blocking; keyword-only in _to_copy
        waits = not (kwargs.get("non_blocking", False) or (len(args) > position and args[position]))
        return not one_device and waits
    if packet in (aten.index, aten.index_put, aten.index_put_):
        # `x[mask] = number`, with the number on the host, is computed by masked_fill, which does not wait
        is_fill = packet is not aten.index and args[2].numel() == 1 and args[2].device.type == "cpu"
        return any(map(_is_mask, args[1])) and not is_fill
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _count_attention_flops(func: OpOverload, args: Sequence[Any]) -> int:
    """Return the FLOPs of attention on a CPU, which torch's counter does not include; 0 for other operations."""
    if func.overloadpacket not in _ATTENTION_ON_CPU:
        return 0
    backward = func.overloadpacket is _ATTENTION_ON_CPU[1]
    query: torch.Tensor
    key: torch.Tensor
    query, key = args[1:3] if backward else args[:2]
    batch, heads, length, width = query.shape
    products = 5 if backward else 2  # the scores are computed again in the backward pass
    return products * 2 * batch * heads * length * key.shape[2] * width


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _count_moved_bytes(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """Return the bytes that an operation reads and writes."""
    arguments = func._schema.arguments
    values = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
    unread = {argument.name for argument in arguments if argument.is_out}
    if func.overloadpacket in _UNREAD:
        unread.add(arguments[0].name)
    read = [value for name, value in values.items() if name not in unread]
    # in-place operations on lists return nothing
    written = out if func._schema.returns else [values[argument.name] for argument in arguments if argument.is_write]
    return sum(_count_bytes(value) for value in tree_leaves((read, written)) if isinstance(value, Tensor))


def _count_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's memory; expanded axes take none."""
    sides = [side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(sides) * tensor.element_size()


class SavedMemory:
    """Counts the memory that autograd keeps for the backward pass, parameters left out."""

    def __init__(self) -> None:
        self._kept: dict[int, torch.UntypedStorage] = {}

    def counting(self) -> AbstractContextManager[Any]:
        """Count the memory saved within the block."""

        def pack(tensor: Tensor) -> Tensor:
            whole = tensor if tensor._base is None else tensor._base  # a linear layer saves a view of its weight
            if not (isinstance(whole, nn.Parameter) or (whole.is_leaf and whole.requires_grad)):
                storage = tensor.untyped_storage()
                self._kept[storage._cdata] = storage  # kept alive, so that no other storage gets its address
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """Size of the saved tensors; storage that they share is counted once."""
        return sum(storage.nbytes() for storage in self._kept.values())


def make_fake_mode() -> FakeTensorMode:
    """Return a context in which tensors have shapes, dtypes and devices, but neither values nor memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def make_fake(module: nn.Module, mode: FakeTensorMode, device: torch.device | str = "cpu") -> nn.Module:
    """Replace a module's parameters and buffers by fake ones on a device."""
    with mode:
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    fake = mode.from_tensor(parameter.detach()).to(device)
                    part._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = mode.from_tensor(buffer).to(device)
    return module
