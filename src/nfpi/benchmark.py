"""Speed and memory of the core computations, each as a ratio to a named reference measured in the same run.

Both sides of a ratio run alternately, and the ratio is that of their medians, so that a slow moment of the machine
affects both.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from nfpi.config.priors import FixedPointConfig
from nfpi.flows.coupling import Coupling
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.flows.networks import NormalizedConv2d
from nfpi.linalg import exponential_action
from nfpi.priors.fixed_point import fit_fixed_point
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.results.csv_files import write_csv
from nfpi.runtime.devices import describe_device, make_device
from nfpi.runtime.files import write_atomically
from nfpi.training.likelihood import negative_log_likelihood

PAPER_FLOW = {
    "shape": (3, 32, 32),
    "num_flows": [8, 8, 8],
    "num_blocks": [8, 4, 2],
    "hidden_channels": [128, 128, 128],
}

_ITERATIONS = 5
"""Iterations of a timed fit; the time of its checks is included."""


@dataclass(frozen=True)
class Measurement:
    """One line of the benchmark.

    Attributes:
        name: what is measured.
        reference: what it is compared with.
        ours, theirs: medians; seconds, or GiB.
        ratio: larger is better where `target` says "at least", otherwise smaller.
        target: of the ratio, or of the amount where there is no ratio.
    """

    name: str
    reference: str
    ours: float
    theirs: float | None
    ratio: float | None
    unit: str
    target: str


def run_benchmarks(output: Path, repeats: int) -> list[Measurement]:
    """Run all measurements, and write benchmark.csv and benchmark.md into a folder.

    Args:
        output: the folder.
        repeats: timed runs of each side, after a warm-up run.
    """
    torch.manual_seed(0)
    found: list[Measurement] = []
    progress = tqdm(total=5, desc="benchmark", disable=None)
    # as in the stages: the fit runs in an unprepared process, a training in one that keeps freed memory (make_device)
    for measure in (_fixed_point, _fixed_point_memory):
        found += measure(torch.device("cpu"), repeats)
        progress.update()
    device = make_device().device
    for measure in (_actions, _training_step, _use):
        found += measure(device, repeats)
        progress.update()
    progress.close()
    frame = pd.DataFrame([asdict(measurement) for measurement in found])
    write_csv(frame, output / "benchmark.csv")
    write_atomically(output / "benchmark.md", _markdown(found, device, repeats))
    return found


def _medians(device: torch.device, repeats: int, *sides: Callable[[], object]) -> list[float]:
    """Measure median seconds of each side; the sides run alternately, after a warm-up run of each."""
    times: list[list[float]] = [[] for _ in sides]
    for round_ in range(repeats + 1):
        for side, its_times in zip(sides, times, strict=True):
            _synchronize(device)
            began = time.perf_counter()
            side()
            _synchronize(device)
            if round_:
                its_times.append(time.perf_counter() - began)
    return [statistics.median(its_times) for its_times in times]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- the coupling's exponential action against the exponential of every matrix ------------------------------


def _actions(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Time e^S x with its gradients, for the sizes of the paper's flow (batch 16)."""
    for channels, pixels in ((6, 256), (12, 64), (24, 16)):
        field = ((2 * torch.rand(16, channels, channels, pixels) - 1) / channels).to(device).requires_grad_()
        vector = torch.randn(16, channels, pixels, device=device, requires_grad=True)
        upstream = torch.randn_like(vector)
        matrices = field.detach().permute(0, 3, 2, 1).flatten(0, 1).contiguous().requires_grad_()
        columns = vector.detach().permute(0, 2, 1).reshape(-1, channels, 1).contiguous().requires_grad_()
        upstream_columns = upstream.permute(0, 2, 1).reshape(-1, channels, 1).contiguous()

        def ours(field: Tensor = field, vector: Tensor = vector, upstream: Tensor = upstream) -> None:
            torch.autograd.grad(exponential_action(field, vector, 1.0), (field, vector), upstream)

        def theirs(a: Tensor = matrices, x: Tensor = columns, upstream: Tensor = upstream_columns) -> None:
            torch.autograd.grad(torch.linalg.matrix_exp(a) @ x, (a, x), upstream)

        fast, slow = _medians(device, repeats, ours, theirs)
        yield Measurement(
            f"coupling action e^S x, forward and backward, C = {channels}",
            "torch.linalg.matrix_exp and a product",
            fast,
            slow,
            slow / fast,
            "s",
            "at least 8×",
        )


# ---- a training step against its convolutions ---------------------------------------------------------------


def _training_step(device: torch.device, repeats: int, batch: int = 16) -> Iterator[Measurement]:
    """Time forward and backward of the likelihood at the paper's size, without the optimizer."""
    flow = MatrixExponentialFlow(**PAPER_FLOW).to(device)  # type: ignore[arg-type]
    x = (2 * torch.rand(batch, 3, 32, 32) - 1).to(device)
    labels = torch.randint(10, (batch,)).to(device)
    dimensions = x[0].numel()
    prior = GaussianPrior(torch.randn(10, dimensions), torch.ones(10, dimensions)).to(device)
    flow.initialize(x)
    couplings = [module for module in flow.modules() if isinstance(module, Coupling)]
    inputs, convolutions = _record_convolutions(flow, x)

    def step() -> None:
        flow.zero_grad()
        negative_log_likelihood(flow, prior, x, labels).mean().backward()

    def nets() -> None:
        flow.zero_grad()
        for coupling, recorded in zip(couplings, inputs, strict=True):
            out = coupling.net(recorded)
            out.backward(torch.ones_like(out))

    def bare() -> None:
        for image, weight, bias, padding in convolutions:
            weight.grad = bias.grad = image.grad = None
            out = F.conv2d(image, weight, bias, padding=padding)
            out.backward(torch.ones_like(out))

    ours, coupling_nets, bare_convolutions = _medians(device, repeats, step, nets, bare)
    yield Measurement(
        f"training step, paper's flow, batch {batch}",
        "its coupling nets alone",
        ours,
        coupling_nets,
        ours / coupling_nets,
        "s",
        "at most 1.10×",
    )
    yield Measurement(
        f"training step, paper's flow, batch {batch}",
        "their bare convolutions",
        ours,
        bare_convolutions,
        ours / bare_convolutions,
        "s",
        "at most 1.22×",
    )


def _use(device: torch.device, repeats: int, batch: int = 32) -> Iterator[Measurement]:
    """Time classification and sampling at the paper's size, from and to 8-bit images, without gradients."""
    from nfpi.model import ClassConditionalFlow

    flow = MatrixExponentialFlow(**PAPER_FLOW).to(device)  # type: ignore[arg-type]
    x = (2 * torch.rand(batch, 3, 32, 32) - 1).to(device)
    flow.initialize(x)
    dimensions = x[0].numel()
    prior = GaussianPrior(torch.randn(10, dimensions), torch.ones(10, dimensions)).to(device)
    classes = [str(index) for index in range(10)]
    data: dict[str, object] = {"name": None, "classes": classes, "dtype": "uint8", "extra": {}}
    noise = {"grey_noise": 0.0, "latent_noise": 0.0}
    model = ClassConditionalFlow(flow, prior, {"data": data, "training": noise, "seed": 0})
    images = torch.randint(256, (batch, 32, 32, 3), dtype=torch.uint8).numpy()
    labels = (torch.arange(batch) % 10).numpy()
    with torch.no_grad():
        _, convolutions = _record_convolutions(flow, x)

    @torch.no_grad()
    def bare() -> None:
        for image, weight, bias, padding in convolutions:
            F.conv2d(image, weight, bias, padding=padding)

    uses = {"predict": lambda: model.predict(images), "sample": lambda: model.sample(labels)}
    *times, bare_convolutions = _medians(device, repeats, *uses.values(), bare)
    for name, ours in zip(uses, times, strict=True):
        yield Measurement(
            f"{name}, paper's flow, {batch} images",
            "the bare convolutions of its coupling nets",
            ours,
            bare_convolutions,
            ours / bare_convolutions,
            "s",
            "at most 1.10×",
        )


def _record_convolutions(
    flow: MatrixExponentialFlow, x: Tensor
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, Tensor, int]]]:
    """Copy the inputs of the coupling nets, and (input, weight, bias, padding) of every convolution."""
    inputs: list[Tensor] = []
    convolutions: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def record_net(module: nn.Module, received: tuple[Tensor, ...]) -> None:
        inputs.append(received[0].detach().clone().requires_grad_())

    def record_convolution(module: nn.Module, received: tuple[Tensor, ...]) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        image = received[0].detach().clone().requires_grad_()
        bias = weight.new_zeros(len(weight), requires_grad=True)
        convolutions.append((image, weight.detach().clone().requires_grad_(), bias, weight.shape[-1] // 2))

    handles = []
    for module in flow.modules():
        if isinstance(module, Coupling):
            handles.append(module.net.register_forward_pre_hook(record_net))
        elif isinstance(module, (NormalizedConv2d, nn.Conv2d)):
            handles.append(module.register_forward_pre_hook(record_convolution))
    flow(x)
    for handle in handles:
        handle.remove()
    return inputs, convolutions


# ---- the fixed-point iteration against sums over an array of all pairs ---------------------------------------


def _statistics(classes: int, dimensions: int) -> ClassStatistics:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    variance = 0.5 + torch.rand(classes, dimensions, generator=generator, dtype=torch.float64)
    return ClassStatistics(torch.full((classes,), 500), mean, variance)


def _fixed_point(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Time one iteration on the CPU, float64, K = 100 and D = 3072, as for CIFAR100."""
    statistics_ = _statistics(100, 3072)
    updates: tuple[Literal["released", "exact"], ...] = ("released", "exact")
    for update in updates:
        config = FixedPointConfig(weight=1e3, update=update, tolerance=0.0, max_iterations=_ITERATIONS)
        fit, slow = _medians(
            device,
            repeats,
            partial(fit_fixed_point, statistics_, config),
            partial(broadcast_iteration, statistics_.mean, statistics_.variance, config),
        )
        fast = fit / _ITERATIONS
        yield Measurement(
            f"fixed-point iteration ({update}), K = 100, D = 3072, float64, CPU",
            "sums over K×K×D arrays",
            fast,
            slow,
            slow / fast,
            "s",
            "at least 30×",
        )


def broadcast_iteration(m: Tensor, v: Tensor, config: FixedPointConfig) -> tuple[Tensor, Tensor]:
    """Compute one iteration of Eqs. 5-7 literally, with K×K×D arrays of all pairs [i, j], starting from m and v.

    Args:
        m, v: (K, D), means and variances of the classes.
        config: of pairwise scale, with mean and variance both fitted.

    Returns:
        new mean and variance, (K, D).
    """
    classes = len(m)
    c = config.weight / (classes * (classes - 1))
    gap = m[:, None] - m[None]
    vi, vj = v[:, None], v[None]
    kld = 0.5 * (vj.log() - vi.log() - 1 + vi / vj + gap**2 / vj).sum(2)
    pi = torch.where(torch.eye(classes, dtype=torch.bool), 1.0, kld)
    kappa = torch.exp(-kld / (pi * config.alpha)) / (pi * config.alpha)
    kappa = kappa.fill_diagonal_(0.0)[:, :, None]
    transposed = kappa.transpose(0, 1)
    released = config.update == "released"
    spread, tight_i, tight_j = vi, 1 / vi, 1 / vj
    if released and config.isotropic_mean_update:
        spread, tight_i, tight_j = (t.mean(2, keepdim=True) for t in (spread, tight_i, tight_j))
    mean = m + c * (spread * (kappa * tight_j + transposed * tight_i) * gap).sum(1)
    squares = gap**2
    if released and config.pooled_mean_gaps:
        squares = squares.sum(0)[None]
    a = (1 + c * (kappa - transposed).sum(1)) / v + c * (transposed * (squares + vj)).sum(1) / v**2
    if released:
        a = v**2 * a
    b = v + c * v**2 * (kappa / vj).sum(1)
    return mean, (b / a).sqrt()


def _fixed_point_memory(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Measure the peak memory of a process that fits K = 1000, D = 4096, as for ImageNet latents."""
    fit = "from nfpi.benchmark import peak_memory_of_a_fit; print(peak_memory_of_a_fit(1000, 4096))"
    process = subprocess.run([sys.executable, "-c", fit], capture_output=True, text=True, check=True)
    peak = float(process.stdout)
    yield Measurement(
        "fixed-point fit, K = 1000, D = 4096, float64: peak memory of the process",
        "one K×K×D array: 30.5 GiB",
        peak,
        1000 * 1000 * 4096 * 8 / 2**30,
        None,
        "GiB",
        "at most 1.5 GiB",
    )


def peak_memory_of_a_fit(classes: int, dimensions: int) -> float:
    """Fit K classes in D dimensions, and return the peak memory of this process in GiB."""
    fit_fixed_point(_statistics(classes, dimensions), FixedPointConfig(weight=1e4, max_iterations=3))
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage returns the parent's peak where that was higher
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _markdown(found: list[Measurement], device: torch.device, repeats: int) -> str:
    def amount(value: float | None, unit: str) -> str:
        if value is None:
            return ""
        return f"{value:.2f} GiB" if unit == "GiB" else f"{1e3 * value:.2f} ms"

    lines = [
        f"Medians of {repeats} runs, alternating; {describe_device(device)}, torch {torch.__version__}.",
        "",
        "| what | reference | ours | reference | ratio | target |",
        "| :--- | :--- | ---: | ---: | ---: | :--- |",
    ]
    for m in found:
        ratio = "" if m.ratio is None else f"{m.ratio:.2f}×"
        ours, theirs = amount(m.ours, m.unit), amount(m.theirs, m.unit)
        lines.append(f"| {m.name} | {m.reference} | {ours} | {theirs} | {ratio} | {m.target} |")
    return "\n".join(lines) + "\n"
