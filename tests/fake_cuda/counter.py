"""Count the operations of one device, and the places where the host waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from counting import OperationCounter
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
_COPIES = {aten._to_copy, aten.copy_}


class DeviceCounter(OperationCounter):
    """Counts the operations on one device, with copies from and to it; a mask of fake tensors selects nothing.

    Attributes:
        host_reads: names of operations at which the host waits for the device. It waits where it reads a number, asks
            how many entries are not zero, or copies to or from the device without `non_blocking`.
    """

    def __init__(self, device: torch.device | str) -> None:
        super().__init__()
        self.host_reads: list[str] = []
        self._device = torch.device(device)

    def describe(self) -> dict[str, Any]:
        """Return the counts so far as a record of JSON."""
        return {
            "operations": len(self.operations),
            "bytes": sum(operation.bytes for operation in self.operations),
            "flops": sum(operation.flops for operation in self.operations),
            "host_reads": self.host_reads,
        }

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run and count one operation; pinning memory, which needs a GPU, is left out."""
        if func.overloadpacket is aten._pin_memory and isinstance(args[0], FakeTensor):
            return args[0]
        return super().__torch_dispatch__(func, types, args, kwargs)

    def count(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Count an operation if one of its tensors is on the device."""
        tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)]
        on_device = [tensor.device.type == self._device.type for tensor in tensors]
        if any(on_device):
            if _makes_host_wait(func, args, kwargs, all(on_device)):
                self.host_reads.append(str(func))
            super().count(func, args, kwargs, out)

    def make_up_result(self, func: OpOverload, args: Sequence[Any]) -> Any:
        """Make up results of operations whose shape depends on data, too."""
        packet, tensor = func.overloadpacket, args[0]
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
        return super().make_up_result(func, args)


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


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)
