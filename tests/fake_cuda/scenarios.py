"""Count what a GPU would run, on fake CUDA tensors.

`python scenarios.py HOOKS` prints the counts of each scenario as JSON. If a scenario fails, e.g. because of
tensors on different devices, its error is printed instead of its counts.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))
from device import install

if __name__ == "__main__":
    install(Path(sys.argv[1]))

import numpy as np
import torch
from counter import DeviceCounter
from counting import SavedMemory, make_fake, make_fake_mode

from nfpi.augmentation import augment_images
from nfpi.classifiers.data import ClassifierData
from nfpi.classifiers.registry import build_classifier
from nfpi.classifiers.training import ClassifierState, ClassifierTraining
from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.flows import MatrixExponentialSettings, NfaConfig, TrainingConfig
from nfpi.data.domain import PixelDomain
from nfpi.data.store import ImageSet
from nfpi.evaluation import evaluate_flow
from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import GaussianPrior
from nfpi.runtime.device import Device
from nfpi.sampling import sample_images
from nfpi.training.batches import TrainingData, latent_statistics
from nfpi.training.flow_training import FlowTraining
from nfpi.training.loop import train
from nfpi.training.state import TrainingState

CUDA = torch.device("cuda", 0)
CLASSES, BATCH, STEPS = 3, 8, 3
SMALL = MatrixExponentialSettings(num_flows=[2, 1], num_blocks=[1, 1], hidden_channels=[8, 8])
DOMAIN = PixelDomain(0.05)


DEVICES = {"32-true": Device(CUDA), "bf16-mixed": Device(CUDA, "bf16-mixed")}


def make_images(shape: tuple[int, int, int], count: int) -> ImageSet:
    """Make black images, of each class in turn."""
    channels, height, width = shape
    names = [str(index) for index in range(CLASSES)]
    pixels = np.zeros((count, height, width, channels), np.uint8)
    return ImageSet(pixels, np.arange(count) % CLASSES, {"name": "black", "classes": names, "extra": {"flip": False}})


class Scenario:
    """One scenario on fake tensors.

    Attributes:
        mode: mode in which tensors are fake.
        counter: counter of the operations on the device.
        saved: memory that is saved for the backward pass.
    """

    def __init__(self) -> None:
        self.mode, self.counter, self.saved = make_fake_mode(), DeviceCounter(CUDA), SavedMemory()
        self._steps: list[dict[str, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count in the block."""
        with self.mode, self.counter:
            yield

    def make_flow(self, shape: tuple[int, int, int], settings: MatrixExponentialSettings) -> MatrixExponentialFlow:
        """Make a flow on the device."""
        flow = MatrixExponentialFlow(shape, **settings.model_dump())
        make_fake(flow, self.mode, CUDA)
        return flow

    def make_prior(self, dimensions: int) -> GaussianPrior:
        """Make Gaussians on the CPU, where files are read to."""
        return GaussianPrior(torch.zeros(CLASSES, dimensions), torch.ones(CLASSES, dimensions))

    def record_each_step(self, ending: Any, name: str) -> None:
        """Record the counts of each step when the method `name` of `ending`, which ends a step, has run."""
        method = getattr(ending, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self._steps.append({**self.counter.describe(), "saved": self.saved.bytes})
            self.counter.operations, self.counter.host_reads, self.saved._kept = [], [], {}
            return result

        setattr(ending, name, run)

    def describe_second_step(self) -> dict[str, Any]:
        """Return the counts of the second step: the first makes the optimizer's state, the last the epoch's row."""
        assert len(self._steps) == STEPS, f"expected {STEPS} steps, received {len(self._steps)}"
        return self._steps[1]


def train_flow(
    precision: str, shape: tuple[int, int, int] = (3, 8, 8), settings: Any = SMALL, batch: int = BATCH
) -> dict[str, Any]:
    """Count a step of the training loop: noise, forward, backward, optimizer, average."""
    scenario, device = Scenario(), DEVICES[precision]
    flow, config = scenario.make_flow(shape, settings), TrainingConfig(batch_size=batch, augmentation="none")
    data = TrainingData(make_images(shape, STEPS * batch), None, config, CUDA)
    prior = scenario.make_prior(flow.as_images(torch.empty(1, *shape)).numel())
    with scenario.running(), scenario.saved:
        state = TrainingState.new(flow, config, 0, data.steps_per_epoch)
        scenario.record_each_step(state.average, "update")
        FlowTraining(state, prior, data, device, 1).run(None, None, progress=False)
    return scenario.describe_second_step()


def use_flow(use: Callable[[MatrixExponentialFlow, GaussianPrior, ImageSet], object]) -> dict[str, Any]:
    """Count a use of a flow without gradients, on two batches of images."""
    shape, scenario = (3, 8, 8), Scenario()
    flow = scenario.make_flow(shape, SMALL).eval()
    with scenario.running():
        use(flow, scenario.make_prior(3 * 8 * 8), make_images(shape, 2 * BATCH))
    return scenario.counter.describe()


def evaluate(flow: MatrixExponentialFlow, prior: GaussianPrior, image_set: ImageSet) -> object:
    """Measure NF-Acc and bits/dim."""
    return evaluate_flow(flow, prior, image_set, batch_size=BATCH, seed=0, domain=DOMAIN)


def compute_statistics(flow: MatrixExponentialFlow, prior: GaussianPrior, image_set: ImageSet) -> object:
    """Compute the statistics of the latents."""
    config = TrainingConfig(batch_size=BATCH, augmentation="none")
    return latent_statistics(flow, TrainingData(image_set, None, config, CUDA), 0)


def sample(flow: MatrixExponentialFlow, prior: GaussianPrior, image_set: ImageSet) -> object:
    """Draw images of all classes."""
    labels = torch.from_numpy(np.array(image_set.labels))
    options: dict[str, Any] = {"temperature": 0.9, "seed": 0, "batch_size": BATCH, "domain": DOMAIN}
    return list(sample_images(flow, prior, labels, **options))


def augment(flow: MatrixExponentialFlow, prior: GaussianPrior, image_set: ImageSet) -> object:
    """Make variants of images in latent space."""
    config = NfaConfig(axes=4, variants=2, batch_size=BATCH)
    return list(augment_images(flow, image_set, config, seed=0, domain=DOMAIN))


def train_classifier(config: dict[str, Any], size: int = 32, precision: str = "32-true") -> dict[str, Any]:
    """Count a step of a classifier's training loop with standard augmentations of batches."""
    scenario, shape = Scenario(), (3, size, size)
    settings = ClassifierConfig.model_validate({"epochs": 1, "batch_size": BATCH, **config})
    data = ClassifierData(
        make_images(shape, STEPS * BATCH), make_images(shape, 0), settings, standard=settings.standard
    )
    model = make_fake(build_classifier(settings, CLASSES, 3, size), scenario.mode, CUDA)
    with scenario.running(), scenario.saved:
        state = ClassifierState.new(model, settings, 0, data.steps_per_epoch)
        scenario.record_each_step(state.schedule, "step")
        train(ClassifierTraining(state, data, DEVICES[precision]), 1)
    return scenario.describe_second_step()


NO_CHANGE: dict[str, Any] = {"flip": False, "crop_padding": 0}
SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    "train_flow 32-true": lambda: train_flow("32-true"),
    "train_flow bf16-mixed": lambda: train_flow("bf16-mixed"),
    "train_flow paper": lambda: train_flow("32-true", (3, 32, 32), MatrixExponentialSettings(), 512),
    "evaluate": lambda: use_flow(evaluate),
    "statistics": lambda: use_flow(compute_statistics),
    "sample": lambda: use_flow(sample),
    "augment": lambda: use_flow(augment),
    "resnet18": lambda: train_classifier({"standard": NO_CHANGE}),
    "swin": lambda: train_classifier(
        {
            "model": "swin",
            "optimizer": "adamw",
            "schedule": "cosine",
            "architecture": {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]},
            "standard": {**NO_CHANGE, "mixup": 1.0, "cutmix": 1.0, "random_erasing": 0.25},
        }
    ),
    "eva02": lambda: train_classifier(
        {
            "model": "eva02",
            "schedule": "constant",
            "gradient_clip": 1.0,
            "architecture": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
            "standard": {**NO_CHANGE, "random_erasing": 0.25},
        },
        precision="bf16-mixed",
    ),
}


def main() -> None:
    """Run the scenarios that the arguments after HOOKS name, or all."""
    found: dict[str, Any] = {}
    for name in sys.argv[2:] or SCENARIOS:
        try:
            found[name] = SCENARIOS[name]()
        except Exception as error:
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
