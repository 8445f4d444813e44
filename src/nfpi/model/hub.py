"""The card of a model, and models on the Hugging Face hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled

from nfpi.config.metrics import MISMATCH_LIMIT, metric
from nfpi.model.files import CONFIG, WEIGHTS
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError

if TYPE_CHECKING:
    from nfpi.model.class_conditional import ClassConditionalFlow

CARD = "README.md"
_TEMPLATE = Path(__file__).parent / "templates/card.md"
_TAGS = ["normalizing-flow", "class-conditional", "image-classification", "image-generation"]
_METRICS_ON_CARD = ("nf_acc", "bits_per_dim", "ece", "worst_class_acc")

logger = logging.getLogger(__name__)


def write_card(card: ModelCard, folder: Path) -> None:
    """Write the card of a model into its folder; one that is there is kept, with a warning."""
    if (folder / CARD).exists():
        logger.warning("%s: kept, as it may have been edited; delete it and save again for a new card", folder / CARD)
    else:
        write_atomically(folder / CARD, card.content)


def make_card(model: ClassConditionalFlow, metrics: Mapping[str, Any] | None, license: str | None) -> ModelCard:
    """Make the card of a model from its config: description, scores and limits.

    Args:
        model: the model.
        metrics: some or all of the metrics of :meth:`nfpi.ClassConditionalFlow.evaluate` on test images.
        license: identifier of the licence of the weights, e.g. "mit"; None: "not stated".

    Raises:
        ValueError: `metrics` has entries but none of these metrics, or one of them is not a number.
    """
    metrics = metrics or {}
    if metrics and not _select_metrics(metrics):
        raise ValueError(f"metrics: expected some of {', '.join(_METRICS_ON_CARD)}, received {', '.join(metrics)}")
    data = ModelCardData(license=license, library_name="nfpi", pipeline_tag="image-classification", tags=_TAGS)
    kind = "vectors" if model.domain.dtype == "float32" else "images"
    splits = {"validation": model.config.get("validation", {}), "test": metrics}
    card: ModelCard = ModelCard.from_template(
        data,
        str(_TEMPLATE),
        title=f"Class-conditional normalizing flow of {model.data['name'] or kind}",
        model=model,
        config={"training": {}, **model.config},
        mismatch_limit=MISMATCH_LIMIT,
        size=model.flow.settings.model_dump(mode="json"),
        parameters=sum(parameter.numel() for parameter in model.flow.parameters()),
        headings=["split", "n", *(metric(name).label for name in _METRICS_ON_CARD)],
        rows=[_format_metrics(split, values) for split, values in splits.items() if values],
    )
    return card


def download_model(name: str, **options: Any) -> Path:
    """Download only config, weights and card of one revision of a model to the hub's cache.

    Args:
        name: id of the repository.
        options: options of :func:`huggingface_hub.snapshot_download`.

    Returns:
        folder of the downloaded files.

    Raises:
        FormatError: the repository does not exist, or is neither reachable nor cached.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, CARD], **options))
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:  # HTTPError: also of the connection
        if getattr(error, "errno", None):  # a fault of this machine, e.g. a full disk
            raise
        raise FormatError(
            f"{name}: expected a folder or a model of the hub, received neither ({format_error(error, 300)})"
        ) from None


def _select_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Select the metrics of a card."""
    return {name: float(values[name]) for name in _METRICS_ON_CARD if name in values}


def _format_metrics(split: str, values: Mapping[str, Any]) -> list[str]:
    """Format a row of a card's table of metrics; cells of metrics that were not measured are empty."""
    cells, numbers = {}, _select_metrics(values)
    for name, value in numbers.items():
        found = metric(name)
        cells[name] = f"{value:.{found.decimals}f}{' %' if found.unit == '%' else ''}"
    if "nf_acc" in cells and values.get("n"):
        low, high = wilson_interval(numbers["nf_acc"], values["n"])
        cells["nf_acc"] += f" (95 % interval {low:.2f} to {high:.2f})"
    if "worst_class_acc" in cells and "worst_class" in values:
        cells["worst_class_acc"] += f" (`{values['worst_class']}`)"
    return [split, str(values.get("n", "")), *(cells.get(name, "") for name in _METRICS_ON_CARD)]
