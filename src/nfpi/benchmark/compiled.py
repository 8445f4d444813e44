"""Count the bytes that the passes of a compiled training step read and write, without compiling it.

Inductor traces the forward and the backward pass and plans their kernels before it generates code. The bytes of each
kernel are those that Inductor counts, with each array read or written once. No code is generated: the traced graph runs
instead, on fake tensors, so a step of any size takes seconds. This relies on private parts of PyTorch, as they are in
2.13.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from nfpi.benchmark.computations import CLASSES
from nfpi.benchmark.counting import OperationCounter, make_fake, make_fake_mode
from nfpi.benchmark.measurement import Measurement
from nfpi.config.flows import MatrixExponentialSettings
from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.flows.series import SeriesBounds
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.likelihood import NegativeLogLikelihood

logger = logging.getLogger(__name__)


def bytes_outside_convolutions(flow: ImageFlow, batch: int) -> tuple[int, int]:
    """Count the bytes that forward and backward of the likelihood read and write outside convolutions, on a CPU.

    Args:
        flow: the flow, whose parameters become fake.
        batch: number of images.

    Returns:
        Bytes of the compiled step and of eager mode.
    """
    SeriesBounds(flow).choose()  # chosen before, because fake tensors have no values
    mode, counter = make_fake_mode(), OperationCounter()
    make_fake(flow, mode).train()
    with mode:
        x, labels = torch.empty(batch, *flow.shape), torch.zeros(batch, dtype=torch.int64)
        means = torch.empty(CLASSES, x[0].numel())
        prior = GaussianPrior(means, means)
        prior.precompute()

        def step(backend: str | None = None) -> None:
            NegativeLogLikelihood(flow, backend, batch)(prior, x, labels).mean().backward()

        with counter:
            step()
        flow.zero_grad()
        with _recorded_kernels() as kernels:
            step("inductor")
    eager = sum(operation.bytes for operation in counter.counts.operations if "convolution" not in operation.name)
    return sum(moved for name, moved in kernels if "convolution" not in name), eager


@contextmanager
def _recorded_kernels() -> Iterator[list[tuple[str, int]]]:
    """Make Inductor record its kernels instead of generating code; yield the growing list of their names and bytes."""
    from torch._functorch import config as autograd
    from torch._inductor import config as inductor
    from torch._inductor.graph import GraphLowering

    kernels: list[tuple[str, int]] = []

    def record_kernels(graph: Any) -> SimpleNamespace:
        graph.init_wrapper_code()
        graph._update_scheduler()
        for kernel in graph.scheduler.nodes:
            name = getattr(kernel.node, "python_kernel_name", None) or ""
            kernels.append((name, kernel.get_read_write_buffers_sizes()))
        graph.cache_key, graph.cache_path, graph.cache_linemap = "", os.devnull, []
        return SimpleNamespace(call=_make_runner(graph.module), __file__=os.devnull, runner=None)

    before = GraphLowering.compile_to_module
    torch.compiler.reset()
    GraphLowering.compile_to_module = record_kernels  # type: ignore[method-assign, assignment]
    try:
        with inductor.patch(fx_graph_cache=False), autograd.patch(enable_autograd_cache=False):
            yield kernels
    finally:
        GraphLowering.compile_to_module = before  # type: ignore[method-assign]
        torch.compiler.reset()


def _make_runner(graph: torch.fx.GraphModule) -> Callable[[list[Tensor]], Any]:
    """Return a function that runs a graph and, as generated code does, empties the list of its inputs."""

    def call(inputs: list[Tensor]) -> Any:
        own = list(inputs)
        inputs.clear()
        return graph(*own)

    return call


def measure_compiled_step(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Yield the bytes of compiled forward and backward passes of the paper's flow with one flow step a level.

    The arguments are unused. If Inductor's plan cannot be read in this version of PyTorch, a warning is logged and
    nothing is yielded.
    """
    settings = MatrixExponentialSettings()
    steps = settings.model_copy(update={"num_flows": [1] * len(settings.num_flows)})
    flow = MatrixExponentialFlow((3, 32, 32), **steps.model_dump())
    try:
        compiled, eager = bytes_outside_convolutions(flow, 512)
    except Exception as error:  # of any type, as torch wraps the errors of a backend
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        logger.warning("not measured: bytes of a compiled step (torch %s: %s)", torch.__version__, reason)
        return
    name = (
        "compiled training step, paper's flow with one step a level, batch 512: read and written outside convolutions"
    )
    yield Measurement(name, "eager mode", compiled / 1e9, eager / 1e9, compiled / eager, "GB", "at most 0.65×")
