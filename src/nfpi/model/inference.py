"""Deterministic passes of images through a flow and back, in batches of bounded memory.

A flow models the density of dequantised images x = image + u. Training and the workflow's evaluation draw a new u for
every image. The methods of `ClassConditionalFlow` use this module instead, in which all images share one draw u
(C, H, W): an image then has one latent and one density, which do not depend on the other images of its batch.

As the shared u is a random draw, the resulting bits/dim are an unbiased estimate of those with new noise for every
image: on digits 6.282 with the shared draw and 6.288 with new noise. If u were the middle of the noise's range, they
would be biased, on digits by 0.27 bits/dim, because a flow assigns higher density to it than to the noise of training.

Results of one image in different batches may differ by float32 rounding, because convolution kernels depend on the
batch size. The networks of a flow can be compiled for these passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FunctionType

import numpy as np
import torch
from torch import Tensor, nn

from nfpi.data.domain import Domain
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.networks import CouplingNet
from nfpi.flows.transformer import TransformerNet
from nfpi.runtime.compiler import BACKEND, require_compiler
from nfpi.runtime.precision import cpu_by_default, full_precision
from nfpi.runtime.randomness import make_generator

_PIXELS = 2**18
"""Largest number of pixels per batch: 256 images of 32×32."""
_LARGEST_BATCH = 1024
"""Largest number of images per batch."""

Net = Callable[[nn.Module, Tensor], Tensor]
"""Function of a network and its input that returns the output."""


def choose_batch_size(flow: ImageFlow) -> int:
    """Return the number of images per batch, which bounds memory: at most 2¹⁸ pixels and at most 1024 images."""
    _, height, width = flow.shape
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


def device_of(flow: ImageFlow) -> torch.device:
    """Return the device of a flow's weights; the CPU if it has no weights."""
    weight = next(flow.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def strict_inference(flow: ImageFlow, nets: CompiledNets | None = None) -> Iterator[None]:
    """Disable gradients and compute in float32, regardless of the caller's precision and default device.

    Args:
        flow: flow to put in evaluation mode; its previous mode is restored at the end.
        nets: compiled networks that the flow uses within the context; None: the flow is not compiled.
    """
    training = flow.training
    flow.eval()
    try:
        compiled = nullcontext() if nets is None else nets.used_in(flow)
        with torch.no_grad(), full_precision(), cpu_by_default(), compiled:
            yield
    finally:
        flow.train(training)


def draw_fixed_noise(domain: Domain, shape: tuple[int, int, int]) -> Tensor:
    """Return u, the draw of a domain's noise that all images share, (1, C, H, W), on the CPU."""
    zeros = torch.zeros(1, *shape, dtype=getattr(torch, domain.dtype))
    return domain.to_flow(zeros, make_generator("cpu", 0, "fixed noise")) - domain.to_flow(zeros, None)


def encode_batches(flow: ImageFlow, domain: Domain, images: np.ndarray) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Pass images (N, H, W, C) with the fixed noise through a flow.

    Yields:
        rows of the batch in `images` (a slice); z (B, C, H, W) and log |det ∂z/∂x| (B,), on the flow's device.
    """
    device, size = device_of(flow), choose_batch_size(flow)
    noise = draw_fixed_noise(domain, flow.shape).to(device)
    for begin in range(0, len(images), size):
        rows = slice(begin, begin + size)
        stored = torch.from_numpy(np.array(images[rows].transpose(0, 3, 1, 2), order="C")).to(device)
        z, log_abs_det = flow(domain.to_flow(stored, None).add_(noise))
        yield rows, z, log_abs_det


def decode_batches(flow: ImageFlow, domain: Domain, latents: Tensor) -> Iterator[np.ndarray]:
    """Pass latents (N, C, H, W) through the inverse of a flow, and subtract the fixed noise.

    Yields:
        images (B, H, W, C) in the domain's dtype.

    Raises:
        FloatingPointError: the inverse of a latent is not finite.
    """
    device = device_of(flow)
    noise = draw_fixed_noise(domain, flow.shape).to(device)
    for number, block in enumerate(latents.split(choose_batch_size(flow))):
        x = flow.inverse(block.to(device))[0]
        bad = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()
        if len(bad):
            index = number * choose_batch_size(flow) + int(bad[0, 0])
            raise FloatingPointError(
                f"latents: the inverse of latent {index} is not finite; the latent may be far from all classes"
            )
        # Without noise, x is at the lower end of the interval of its grey level, and rounding errors may move it below.
        # half_level moves it to the centre.
        yield domain.to_images(x - noise + domain.half_level).permute(0, 2, 3, 1).cpu().numpy()


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
