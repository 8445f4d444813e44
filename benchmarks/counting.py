"""Count the operations of training steps and other passes, their FLOPs and bytes, and the memory that they keep.

Counts do not depend on the load of the machine and need no values: on fake tensors
(:class:`torch._subclasses.fake_tensor.FakeTensorMode`), which take no memory, a step of any size is counted in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from nfpi import linalg
from nfpi.config.flows import TrainingConfig
from nfpi.flows import matrix_exponential as paper_flow
from nfpi.flows import networks
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.series import SeriesBounds
from nfpi.priors import gaussian
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.likelihood import negative_log_likelihood
from nfpi.training.state import TrainingState

aten = torch.ops.aten
# torch registers the attention of GPUs only
flop_registry.setdefault(aten._scaled_dot_product_flash_attention_for_cpu, sdpa_flop)
flop_registry.setdefault(aten._scaled_dot_product_flash_attention_for_cpu_backward, sdpa_backward_flop)

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
_READ_BY_HOST = 0.2
"""what the host reads for every floating-point number of fake tensors, such as a bound of |S_ij|"""
_CLASSES = 10


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


class OperationCounter(TorchDispatchMode):
    """Counts the operations within its context.

    Values that the host reads from fake tensors are made up: the result of `any()` is False, every other boolean is
    True, a floating-point number is 0.2, and an integer is 0.

    Attributes:
        operations: counted operations, in the order of their calls.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run and count one operation."""
        kwargs = dict(kwargs or {})
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            out = self.make_up_result(func, args)
        if func.overloadpacket is aten.any:
            out.nfpi_reads_false = True  # not True as other booleans: checks call any() to look for infinity or NaN
        self.count(func, args, kwargs, out)
        return out

    def count(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Count an operation that has run, unless it does no work."""
        if not _does_work(func):
            return
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        dtype = next((tensor.dtype for tensor in inputs if tensor.is_floating_point()), torch.float32)
        count_flops = flop_registry.get(func.overloadpacket)
        flops = 0 if count_flops is None else count_flops(*args, **kwargs, out_val=out)
        self.operations.append(Operation(str(func), flops, _count_moved_bytes(func, args, kwargs, out), dtype))

    def make_up_result(self, func: OpOverload, args: Sequence[Any]) -> Any:
        """Make up the result of an operation whose value or shape depends on data that fake tensors lack."""
        if func.overloadpacket is not aten._local_scalar_dense:
            raise NotImplementedError(f"operation counter: no value is known for {func} on fake tensors")
        (tensor,) = args
        if tensor.dtype is torch.bool:
            return not hasattr(tensor, "nfpi_reads_false")
        return _READ_BY_HOST if tensor.is_floating_point() else 0


def _does_work(func: OpOverload) -> bool:
    """Return whether an operation does work on its device, i.e. is no view, no allocation and no read by the host."""
    if func.namespace == "prim" or func.overloadpacket in _NO_WORK:
        return False
    aliases = [result.alias_info for result in func._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


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


class SavedMemory(torch.autograd.graph.saved_tensors_hooks):
    """Counts the memory that autograd keeps within the block for the backward pass, parameters left out."""

    def __init__(self) -> None:
        super().__init__(self._pack, lambda tensor: tensor)
        self._kept: dict[int, torch.UntypedStorage] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        whole = tensor if tensor._base is None else tensor._base  # a linear layer saves a view of its weight
        if not (isinstance(whole, nn.Parameter) or (whole.is_leaf and whole.requires_grad)):
            storage = tensor.untyped_storage()
            self._kept[storage._cdata] = storage  # kept alive, so that no other storage gets its address
        return tensor

    @property
    def bytes(self) -> int:
        """Size of the saved tensors; storage that they share is counted once."""
        return sum(storage.nbytes() for storage in self._kept.values())


@contextmanager
def as_accelerator() -> Iterator[None]:
    """Choose operations as on an accelerator within the block, to count them on a machine without one."""
    with ExitStack() as stack:
        for module in (linalg, networks, paper_flow, gaussian):
            stack.enter_context(patch.object(module, "has_launch_overhead", lambda device: True))
        yield


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


@dataclass(frozen=True)
class Step:
    """Operations and memory of one training step, or of a pass without gradients, which has no update.

    Attributes:
        passes: operations of the forward and backward pass.
        update: operations of the optimizer's step, and of the update of the averaged weights if there are any.
        saved: bytes that autograd stores between the forward and the backward pass.
        state: bytes of weights, gradients, the optimizer's moments and the averaged weights.
    """

    passes: list[Operation]
    update: list[Operation] = field(default_factory=list)
    saved: int = 0
    state: int = 0

    @property
    def operations(self) -> list[Operation]:
        """Operations of the whole step."""
        return self.passes + self.update


def count_flow_step(flow: ImageFlow, batch: int, precision: str, config: TrainingConfig | None = None) -> Step:
    """Count the operations and memory of a training step of a flow, whose parameters become fake.

    Args:
        flow: the flow f.
        batch: number of images.
        precision: `32-true` or `bf16-mixed`, the precision of matrix products and convolutions.
        config: settings of the training, such as the optimizer; None: the defaults.
    """
    config, mode = config or TrainingConfig(), make_fake_mode()
    SeriesBounds(flow).choose()  # chosen before, because fake tensors have no values
    make_fake(flow, mode).train()
    with mode, as_accelerator():
        state = TrainingState.new(flow, config, 0, 1)
        state.average.update(1)
        x, labels = torch.empty(batch, *flow.shape), torch.zeros(batch, dtype=torch.int64)
        means = torch.empty(_CLASSES, x[0].numel())
        prior, mixed = GaussianPrior(means, means), _evaluate_in(precision, flow)

        def compute_loss() -> Tensor:
            return negative_log_likelihood(mixed, prior, x, labels).mean()

        return _count_step(flow, compute_loss, state.optimizer, state.average.update)


def count_classifier_step(
    build_model: Callable[[], nn.Module],
    shape: tuple[int, ...],
    precision: str,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> Step:
    """Count the operations and memory of a training step of a classifier.

    Args:
        build_model: function that returns the model, which maps images (B, C, H, W) to logits.
        shape: shape of a batch of images, (B, C, H, W).
        precision: `32-true` or `bf16-mixed`.
        make_optimizer: function that returns an optimizer of the model's parameters.
    """
    mode = make_fake_mode()
    model = make_fake(build_model(), mode).train()
    with mode:
        x, labels = torch.empty(shape), torch.zeros(shape[0], dtype=torch.int64)
        mixed = _evaluate_in(precision, model)
        return _count_step(model, lambda: F.cross_entropy(mixed(x), labels), make_optimizer(model))


def count_pass(module: nn.Module, shape: tuple[int, ...], method: str = "forward") -> Step:
    """Count the operations of a pass in float32 without gradients; the module's parameters become fake.

    Args:
        module: module that is called.
        shape: shape of its input, (B, C, H, W).
        method: name of the method that is called.
    """
    mode, counter = make_fake_mode(), OperationCounter()
    make_fake(module, mode).eval()
    with mode, as_accelerator(), torch.no_grad():
        x = torch.empty(shape)
        with counter:
            getattr(module, method)(x)
    return Step(counter.operations)


def _count_step(
    module: nn.Module,
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    average: Callable[[int], object] | None = None,
) -> Step:
    """Count the forward and backward pass and the second optimizer step; the first also allocates the moments."""
    for group in optimizer.param_groups:
        group["foreach"] = True  # the default on GPUs
    passes, update, saved = OperationCounter(), OperationCounter(), SavedMemory()
    with passes:
        with saved:
            value = loss()
        value.backward()
    kept = saved.bytes
    with OperationCounter():
        optimizer.step()
    with update:
        optimizer.step()
        if average is not None:
            average(2)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    tensors = [value for of_one in optimizer.state.values() for value in of_one.values() if isinstance(value, Tensor)]
    moments = sum(value.nbytes for value in tensors if value.dim() > 0)
    state = weights * (3 if average is not None else 2) + moments
    return Step(passes.operations, update.operations, kept, state)


def _evaluate_in(precision: str, module: nn.Module) -> Callable[[Tensor], Any]:
    """Return a module evaluated in a given precision, with float32 outputs."""

    def evaluate(x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            out = module(x)
        return tuple(part.float() for part in out) if isinstance(out, tuple) else out.float()

    return evaluate
