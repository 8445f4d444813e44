"""Track a running training beside its log: its numbers in TensorBoard, and grids of samples.

Neither affects the training. They are not outputs of a stage, and no manifest lists them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nfpi.config.base import ConfigError
from nfpi.data.domain import PixelDomain
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.divergence import NOT_FINITE
from nfpi.sampling import balanced_labels, sample_images
from nfpi.training.batches import TrainingData
from nfpi.training.loop import LogRow
from nfpi.training.state import TrainingState

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

EVENTS, SAMPLES = "tracking", "samples"
_MAX_CLASSES, _PER_CLASS = 10, 10


@contextmanager
def tracking(
    folder: Path | None, data: TrainingData, log: Sequence[LogRow]
) -> Iterator[Callable[[TrainingState, GaussianPrior], None]]:
    """Open the files that track a training; the training must call the yielded function at the end of every epoch.

    Files of an earlier training, or of epochs after the last one of the log, are removed from the folder.

    Args:
        folder: parent of the folders of events and of samples; None: nothing is tracked.
        data: images and settings of the training.
        log: rows of the previous epochs, which are added to the events.

    Yields:
        function of the state and the Gaussians at the end of an epoch, which writes what is due.
    """
    if folder is None:
        yield lambda state, prior: None
        return
    later = [path for path in folder.glob(f"{SAMPLES}/epoch=*.png") if path.name > _name_grid(len(log))]
    for file in (*folder.glob(f"{EVENTS}/events.out.tfevents.*"), *later):
        file.unlink(missing_ok=True)
    every = data.config.sample_every_epochs if isinstance(data.domain, PixelDomain) else 0
    with nullcontext() if data.config.tracking is None else _open_events(folder / EVENTS, log) as events:

        def track(state: TrainingState, prior: GaussianPrior) -> None:
            epoch = len(state.log)
            if events is not None:
                _write_rows(events, state.log[-1:])
            if every and epoch % every == 0:
                _write_samples(folder / SAMPLES / _name_grid(epoch), state, prior, data)

        yield track


def _name_grid(epoch: int) -> str:
    return f"epoch={epoch:04d}.png"


def _open_events(folder: Path, log: Sequence[LogRow]) -> SummaryWriter:
    """Open an event file with the previous epochs of the log.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"training.tracking: expected tensorboard (pip install 'nfpi[tracking]'), received none ({error})"
        ) from None
    events = SummaryWriter(folder)
    _write_rows(events, log)
    return events


def _write_rows(events: SummaryWriter, rows: Sequence[LogRow]) -> None:
    """Add rows of the log."""
    for row in rows:
        for name in row.keys() - {"epoch"}:
            if row[name] is not None:
                events.add_scalar(name, row[name], row["epoch"])
    events.flush()


def _write_samples(path: Path, state: TrainingState, prior: GaussianPrior, data: TrainingData) -> None:
    """Write a grid of samples of the averaged flow, one row per class, from the same noise at every epoch."""
    from torchvision.utils import save_image

    labels = balanced_labels(min(prior.num_classes, _MAX_CLASSES), _PER_CLASS)
    try:
        ((images, _),) = sample_images(
            state.averaged_flow, prior, labels, temperature=1.0, seed=state.seed, domain=data.domain
        )
    except NOT_FINITE as error:  # the inverse may overflow even if the flow is trained well
        logger.warning("epoch %d: no samples (%s)", len(state.log), error)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(images / 255, path, nrow=_PER_CLASS)
