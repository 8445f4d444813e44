"""Compile the coupling networks of a flow with torch.compile, for inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType

import torch
from torch import Tensor, nn

from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.networks import CouplingNet
from nfpi.flows.transformer import TransformerNet
from nfpi.runtime.compiler import BACKEND, require_compiler

Net = Callable[[nn.Module, Tensor], Tensor]
"""Function of a network and its input that returns the output."""


class CompiledNets:
    """Compiles the coupling networks of a flow, which take nearly all of its time, at their first use.

    Networks of the same type and weight shapes share a graph. Its batch size is dynamic, so that other batch sizes do
    not recompile it; a single image runs uncompiled, because torch.compile specialises on size 1.

    Outside of :meth:`used_in`, the flow is unchanged: its weights keep their names, and it is copied and trained as
    without compilation. Copying or unpickling this object returns None.

    Args:
        flow: flow whose networks are :class:`nfpi.flows.networks.CouplingNet` or those of the transformer flow.
        device: device to compile for.

    Raises:
        ValueError: the flow has no such networks, or the compiler does not work.
    """

    def __init__(self, flow: ImageFlow, device: torch.device) -> None:
        if not _list_nets(flow):
            raise ValueError(f"compile: expected a flow with coupling networks, received a flow {flow.kind!r}")
        self.check_compiler(device)
        self._compiled: dict[object, Net] = {}

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    @staticmethod
    def check_compiler(device: torch.device) -> None:
        """Raise ValueError if the compiler does not work for a device."""
        require_compiler("compile", device)

    @contextmanager
    def used_in(self, flow: ImageFlow) -> Iterator[None]:
        """Let the networks of the flow run compiled within the context."""
        nets = _list_nets(flow)
        for net in nets:
            net.forward = partial(_run, self._compile(net), net)
        try:
            yield
        finally:
            for net in nets:
                net.__dict__.pop("forward", None)  # restores the method of its class

    def _compile(self, net: nn.Module) -> Net:
        key = (type(net), *(weight.shape for weight in net.parameters()))
        if key not in self._compiled:
            # torch compiles at most eight graphs of a code object, so every structure has its own copy of the code
            forward = FunctionType(_forward.__code__.replace(), globals())
            self._compiled[key] = torch.compile(forward, backend=BACKEND, fullgraph=True, dynamic=False)
        return self._compiled[key]


def _list_nets(flow: ImageFlow) -> list[nn.Module]:
    return [module for module in flow.modules() if isinstance(module, (CouplingNet, TransformerNet))]


def _run(compiled: Net, net: nn.Module, x: Tensor) -> Tensor:
    if len(x) == 1:
        return _forward(net, x)
    x = x.contiguous()  # other strides would compile another graph
    torch._dynamo.mark_dynamic(x, 0)
    return compiled(net, x)


def _forward(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = type(net).forward(net, x)
    return out
