"""Saving a trained flow as a folder with a model card, or as a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from huggingface_hub import EvalResult, ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from nfpi.config.metrics import MISMATCH_LIMIT, metric
from nfpi.config.priors import PRIORS
from nfpi.model.trained import CONFIG, WEIGHTS, TrainedFlow
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError

CARD = "README.md"
_TEMPLATE = Path(__file__).parent / "templates/card.md"
_TAGS = ["normalizing-flow", "class-conditional", "image-classification", "image-generation"]
_METRICS_ON_CARD = ("nf_acc", "bits_per_dim", "ece", "worst_class_acc")
_NAMES_ON_HUB = {"nf_acc": "accuracy", "bits_per_dim": "bits_per_dim", "ece": "ece"}

logger = logging.getLogger(__name__)


class SharedFlow(TrainedFlow, ModelHubMixin):
    """A trained flow that can be saved with its card and shared; base class of :class:`nfpi.ClassConditionalFlow`."""

    def save_pretrained(  # type: ignore[override]  # pushing has its own method
        self,
        save_directory: Path | str,
        *,
        metrics: Mapping[str, Any] | None = None,
        license: str | None = None,
        config: object = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write config.json, model.safetensors and README.md, the model's card, into a folder.

        An existing README.md is kept, with a warning, as it may have been edited: delete it for a new card. The
        workflow's `model/` is such a folder, without a card.

        Args:
            save_directory: the folder.
            metrics: metrics of :meth:`evaluate` on test images, for the card.
            license: licence of the weights, for the card, e.g. "mit".
            config: ignored, as the model writes its own; an argument of :class:`huggingface_hub.ModelHubMixin`.
            model_card_kwargs: further arguments of :meth:`generate_model_card`.

        Raises:
            ValueError: the metrics are not those of :meth:`evaluate`, or :meth:`from_pretrained` would refuse the
                model; nothing is written.
        """
        folder = Path(save_directory)
        given = {"metrics": metrics, "license": license, **(model_card_kwargs or {})}
        card = self.generate_model_card(**given)
        known = self._complete_card(**given)
        replace(self, config=self.config | ({"card": known} if any(known.values()) else {})).write(folder)
        if (folder / CARD).exists():
            logger.warning(
                "%s: kept, as it may have been edited; delete it and save again for a new card", folder / CARD
            )
        else:
            write_atomically(folder / CARD, card.content)

    def generate_model_card(self, *, metrics: Mapping[str, Any] | None = None, license: str | None = None) -> ModelCard:
        """Make the model's card from its config: description, scores and limits.

        Args:
            metrics: some or all of the metrics of :meth:`evaluate` on test images; None: those of the card that the
                model was saved with, if any.
            license: identifier of the licence of the weights, e.g. "mit"; None: as for `metrics`, or "not stated".

        Raises:
            ValueError: `metrics` has entries but none of these metrics, or one of them is not a number.
        """
        known = _select_metrics(metrics or {})
        if metrics and not known:
            raise ValueError(f"metrics: expected some of {', '.join(_METRICS_ON_CARD)}, received {', '.join(metrics)}")
        metrics, license = self._complete_card(metrics, license).values()
        known = _select_metrics(metrics)
        name = self.data["name"] or "images"
        title = f"Class-conditional normalizing flow of {name}"
        about: dict[str, Any] = {"task_type": "image-classification", "dataset_type": name, "dataset_name": name}
        results = [
            EvalResult(**about, dataset_split="test", metric_type=on_hub, metric_value=round(known[key], 4))
            for key, on_hub in _NAMES_ON_HUB.items()
            if math.isfinite(known.get(key, math.nan))
        ]
        data = ModelCardData(
            license=license,
            library_name="nfpi",
            pipeline_tag="image-classification",
            tags=_TAGS,
            model_name=title if results else None,
            eval_results=results or None,
        )
        splits = {"validation": self.config.get("validation", {}), "test": metrics}
        card: ModelCard = ModelCard.from_template(
            data,
            str(_TEMPLATE),
            title=title,
            model=self,
            config={"training": {}, **self.config},
            method=_describe_method(self.config),
            mismatch_limit=MISMATCH_LIMIT,
            size=self.flow.settings.model_dump(mode="json"),
            parameters=sum(parameter.numel() for parameter in self.flow.parameters()),
            headings=["images", "n", *(metric(name).label for name in _METRICS_ON_CARD)],
            rows=[_format_metrics(split, values) for split, values in splits.items() if _select_metrics(values)],
        )
        return card

    def _complete_card(self, metrics: Mapping[str, Any] | None, license: str | None) -> dict[str, Any]:
        """Return metrics and licence for a card, for those that are None those of the card saved last."""
        saved = self.config.get("card", {})
        if metrics is None:
            kept = saved.get("metrics", {})
        else:
            kept = {name: value for name, value in _select_metrics(metrics).items() if math.isfinite(value)}
            kept |= {name: kind(metrics[name]) for name, kind in (("n", int), ("worst_class", str)) if name in metrics}
        return {"metrics": kept, "license": saved.get("license") if license is None else license}

    def push_to_hub(
        self, repo_id: str, *, metrics: Mapping[str, Any] | None = None, license: str | None = None, **options: Any
    ) -> str:
        """Upload the files of :meth:`save_pretrained` to a repository of the Hugging Face hub.

        Args:
            repo_id: id of the repository, `owner/name`; created if it does not exist.
            metrics: metrics of :meth:`evaluate`, for the card.
            license: licence of the weights, for the card.
            options: options of :meth:`huggingface_hub.ModelHubMixin.push_to_hub`: `private`, `token`, `branch`, …

        Returns:
            URL of the commit.

        Raises:
            ConnectionError: the hub is out of reach.
        """
        card_options: dict[str, Any] = {"metrics": metrics, "license": license}
        self.generate_model_card(**card_options)  # wrong metrics are an error before the repository is created
        try:
            return str(super().push_to_hub(repo_id, model_card_kwargs=card_options, **options))
        except HTTPError as error:
            if getattr(error, "response", None) is not None:  # an answer, such as a refusal, which its text explains
                raise
            raise ConnectionError(f"{repo_id}: the hub is out of reach ({format_error(error, 300)})") from None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **options: Any) -> Self:
        """Read a model from a folder, without the network, or from a repository of the Hugging Face hub.

        Args:
            pretrained_model_name_or_path: folder written by :meth:`save_pretrained` or the workflow; or, if it does not
                exist, id of a repository.
            options: options of :func:`huggingface_hub.snapshot_download`: `revision`, `cache_dir`, `force_download`,
                `local_files_only`, `token`.

        Returns:
            the model, on the CPU.

        Raises:
            FormatError: a file is missing, damaged or of another format, or the weights are a pickle; or the repository
                does not exist, or is neither reachable nor cached.
            ConfigError: the kind of flow is not known, perhaps because its extension was not loaded.
            Diverged: the files record a fit that diverged.
        """
        name = pretrained_model_name_or_path
        is_local = isinstance(name, Path) or Path(name).exists()
        return cls.read(name if is_local else download_model(str(name), **options))


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


def _describe_method(config: Mapping[str, Any]) -> str:
    """Describe how the Gaussians were obtained, as the end of a sentence."""
    prior = config.get("prior", {})
    if "refit" in prior:
        return ", estimated again from the latents of the training images"
    method = prior.get("method")
    if config.get("start") == "release":
        return ", read from a checkpoint of the paper's code"
    if method is None:
        return ", kept at their initial values" if prior else ""
    how = "obtained"  # by a method of an extension that is not loaded
    if method in PRIORS:
        how = "learned along with f" if PRIORS[method].traits["learned"] else "fitted"
    end = f", which did not converge in {prior['iterations']} iterations" if prior.get("converged") is False else ""
    return f", {how} by the method `{method}`{end}"
