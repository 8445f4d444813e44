"""The card of a model, and models on the Hugging Face hub."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from nfpi.config.metrics import MISMATCH_LIMIT, metric
from nfpi.config.priors import PRIORS
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
_NAMES_ON_HUB = {"nf_acc": "accuracy", "bits_per_dim": "bits_per_dim", "ece": "ece"}

logger = logging.getLogger(__name__)


def save_with_card(model: ClassConditionalFlow, folder: Path, **facts: Any) -> None:
    """Write a model and its card into a folder, see :meth:`nfpi.ClassConditionalFlow.save_pretrained`.

    Args:
        model: the model.
        folder: the folder.
        facts: `metrics` and `license` for the card.
    """
    card = model.generate_model_card(**facts)
    known = _complete_card(model.config, **facts)
    replace(model, config=model.config | ({"card": known} if any(known.values()) else {})).write(folder)
    if (folder / CARD).exists():
        logger.warning("%s: kept, as it may have been edited; delete it and save again for a new card", folder / CARD)
    else:
        write_atomically(folder / CARD, card.content)


def make_card(model: ClassConditionalFlow, metrics: Mapping[str, Any] | None, license: str | None) -> ModelCard:
    """Make the card of a model, see :meth:`nfpi.ClassConditionalFlow.generate_model_card`."""
    metrics, license = _complete_card(model.config, metrics, license).values()
    known = _select_metrics(metrics)
    name = model.data["name"] or "images"
    title = f"Class-conditional normalizing flow of {name}"
    about: dict[str, Any] = {"task_type": "image-classification", "dataset_type": name, "dataset_name": name}
    results = [
        EvalResult(**about, dataset_split="test", metric_type=on_hub, metric_value=round(known[key], 4))
        for key, on_hub in _NAMES_ON_HUB.items()
        if key in known
    ]
    data = ModelCardData(
        license=license,
        library_name="nfpi",
        pipeline_tag="image-classification",
        tags=_TAGS,
        model_name=title if results else None,
        eval_results=results or None,
    )
    splits = {"validation": model.config.get("validation", {}), "test": metrics}
    card: ModelCard = ModelCard.from_template(
        data,
        str(_TEMPLATE),
        title=title,
        model=model,
        config={"training": {}, **model.config},
        how=_describe_fit(model.config.get("prior", {}).get("method", "")),
        mismatch_limit=MISMATCH_LIMIT,
        size=model.flow.settings.model_dump(mode="json"),
        parameters=sum(parameter.numel() for parameter in model.flow.parameters()),
        headings=["images", "n", *(metric(name).label for name in _METRICS_ON_CARD)],
        rows=[_format_metrics(split, values) for split, values in splits.items() if _select_metrics(values)],
    )
    return card


def _complete_card(config: Mapping[str, Any], metrics: Mapping[str, Any] | None, license: str | None) -> dict[str, Any]:
    """Return metrics and licence for a card, for those that are None those of the card saved last."""
    saved = config.get("card", {})
    if metrics is None:
        kept = saved.get("metrics", {})
    else:
        numbers = _select_metrics(metrics)
        if metrics and not numbers:
            raise ValueError(f"metrics: expected some of {', '.join(_METRICS_ON_CARD)}, received {', '.join(metrics)}")
        kept = {name: value for name, value in numbers.items() if math.isfinite(value)}
        kept |= {name: kind(metrics[name]) for name, kind in (("n", int), ("worst_class", str)) if name in metrics}
    return {"metrics": kept, "license": saved.get("license") if license is None else license}


def push_model(model: ClassConditionalFlow, repo_id: str, facts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Upload a model to a repository, see :meth:`nfpi.ClassConditionalFlow.push_to_hub`.

    Args:
        model: the model.
        repo_id: id of the repository.
        facts: `metrics` and `license` for the card.
        options: options of :meth:`huggingface_hub.ModelHubMixin.push_to_hub`.

    Returns:
        URL of the commit.
    """
    model.generate_model_card(**facts)  # wrong metrics are an error before the repository is created
    try:
        # not a base class of the model, which would import this library wherever a model is used; it asks nothing of
        # a model but `save_pretrained`
        return ModelHubMixin.push_to_hub(cast(Any, model), repo_id, model_card_kwargs=dict(facts), **options)
    except HTTPError as error:
        if getattr(error, "response", None) is not None:  # an answer, such as a refusal, which its text explains
            raise
        raise ConnectionError(f"{repo_id}: the hub is out of reach ({format_error(error, 300)})") from None


def download_model(name: str, **options: Any) -> Path:
    """Download only config, weights and card of one revision of a model to the hub's cache.

    Args:
        name: id of the repository.
        options: options of :func:`huggingface_hub.snapshot_download`.

    Returns:
        folder of the downloaded files.

    Raises:
        FormatError: the repository does not exist, or is neither reachable nor cached.
        OSError: the files cannot be written.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, CARD], **options))
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:  # HTTPError: also of the connection
        if getattr(error, "errno", None):  # a fault of this machine, e.g. a full disk
            raise
        is_offline = isinstance(error, LocalEntryNotFoundError)
        reason = "the hub is out of reach, and the model not cached" if is_offline else format_error(error, 300)
        raise FormatError(f"{name}: expected a folder or a model of the hub, received neither ({reason})") from None


def _select_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Select the metrics of a card; NaN: not measured."""
    try:
        return {name: float(values[name]) for name in _METRICS_ON_CARD if name in values}
    except (TypeError, ValueError) as error:
        raise ValueError(f"metrics: expected numbers, received another value ({error})") from None


def _format_metrics(split: str, values: Mapping[str, Any]) -> list[str]:
    """Format a row of a card's table of metrics; cells of metrics that were not measured are empty."""
    cells = {}
    numbers = _select_metrics(values)
    for name, value in numbers.items():
        if math.isfinite(value):
            found = metric(name)
            cells[name] = f"{value:.{found.decimals}f}{' %' if found.unit == '%' else ''}"
    if "nf_acc" in cells and values.get("n"):
        low, high = wilson_interval(numbers["nf_acc"], values["n"])
        cells["nf_acc"] += f" (95 % interval {low:.2f} to {high:.2f})"
    if "worst_class_acc" in cells and "worst_class" in values:
        name = str(values["worst_class"]).replace("|", r"\|")  # a plain | would end the cell
        cells["worst_class_acc"] += f" (`{name}`)"
    return [split, str(values.get("n", "")), *(cells.get(name, "") for name in _METRICS_ON_CARD)]


def _describe_fit(method: str) -> str:
    """Describe how a method obtains the Gaussians, as a participle."""
    if method not in PRIORS:
        return "obtained"  # by a method of an extension that is not loaded
    return "learned along with f" if PRIORS[method].traits["learned"] else "fitted"
