"""Saving a trained flow as a folder with a model card, or as a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from nfpi.model.card import make_card
from nfpi.model.trained import CONFIG, WEIGHTS, TrainedFlow
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError

CARD = "README.md"

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
        card = self.generate_model_card(**{"metrics": metrics, "license": license, **(model_card_kwargs or {})})
        self.write(folder)
        if (folder / CARD).exists():
            logger.warning(
                "%s: kept, as it may have been edited; delete it and save again for a new card", folder / CARD
            )
        else:
            write_atomically(folder / CARD, card.content)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Make the model's card, see :func:`nfpi.model.card.make_card`."""
        return make_card(self, *args, **kwargs)

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
        """
        card_options = {"metrics": metrics, "license": license}
        self.generate_model_card(**card_options)  # wrong metrics are an error before the repository is created
        return str(super().push_to_hub(repo_id, model_card_kwargs=card_options, **options))

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
        return cls.read(name if Path(name).exists() or not is_hub_id(name) else download_model(str(name), **options))


def is_hub_id(name: Path | str) -> bool:
    """Return whether a name may be a repository id, `owner/name` or `name`; a path object never is."""
    try:
        validate_repo_id(name)  # type: ignore[arg-type]  # which refuses paths
    except HFValidationError:
        return False
    return True


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
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:  # HTTPError: also those of the connection
        if getattr(error, "errno", None):  # a fault of this machine, e.g. a full disk
            raise
        reason = format_error(error, 300)
        raise FormatError(f"{name}: expected a folder or a model of the hub, received neither ({reason})") from None
