"""Saving a trained flow as a folder with a model card, or as a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from nfpi.model.card import is_unedited_card, make_card
from nfpi.model.trained import CONFIG, WEIGHTS, TrainedFlow
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError

CARD = "README.md"

logger = logging.getLogger(__name__)


class SharedFlow(TrainedFlow, ModelHubMixin):
    """A trained flow that can be saved with its card and shared; base class of :class:`nfpi.ClassConditionalFlow`."""

    def save_pretrained(
        self,
        save_directory: Path | str,
        *,
        metrics: Mapping[str, Any] | None = None,
        license: str | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        config: object = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and README.md, the model's card, into a folder.

        An existing README.md is replaced if it was written by this method and not edited since; otherwise it is kept,
        with a warning. The workflow's `model/` is such a folder, without a card.

        Args:
            save_directory: the folder.
            metrics: metrics of :meth:`evaluate` on test images, for the card.
            license: licence of the weights, for the card, e.g. "mit".
            repo_id: id of the repository to push to; None: the folder's name.
            push_to_hub: whether to push the model as well.
            config: ignored, as the model writes its own; an argument of :class:`huggingface_hub.ModelHubMixin`.
            model_card_kwargs: further arguments of :meth:`generate_model_card`.
            options: options of :meth:`push_to_hub`; only with `push_to_hub`.

        Returns:
            URL of the commit if the model was pushed.

        Raises:
            TypeError: an option is unknown, or is one of :meth:`push_to_hub` although the model is not pushed.
            ValueError: the metrics are not those of :meth:`evaluate`, or :meth:`from_pretrained` would refuse the
                model; nothing is written.
        """
        _require_known(options, push_to_hub)
        folder = Path(save_directory)
        card_options = {"metrics": metrics, "license": license, **(model_card_kwargs or {})}
        card = self.generate_model_card(**card_options).content
        self._save_pretrained(folder)
        _write_card(folder / CARD, card)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.resolve().name, model_card_kwargs=card_options, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.write(save_directory)

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
        card_options = {"metrics": metrics, "license": license, **(options.pop("model_card_kwargs", None) or {})}
        self.generate_model_card(**card_options)  # invalid metrics are an error before the repository is created
        return str(super().push_to_hub(repo_id, model_card_kwargs=card_options, **options))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin takes further settings
        cls,
        pretrained_model_name_or_path: Path | str,
        *,
        revision: str | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Read a model from a folder, without the network, or from a repository of the Hugging Face hub.

        Args:
            pretrained_model_name_or_path: folder written by :meth:`save_pretrained` or the workflow; or, if it does not
                exist, id of a repository.
            revision: branch, tag or commit of the repository; None: its main branch.
            cache_dir: folder where downloads are kept; None: the hub's default cache.
            force_download: whether to download again what is in the cache.
            local_files_only: whether to use only the cache, without the network.
            token: access token for a private repository.

        Returns:
            the model, on the CPU.

        Raises:
            FormatError: a file is missing, damaged or of another format, or the weights are a pickle; or the repository
                does not exist, or is neither reachable nor cached.
            ConfigError: the kind of flow is not known, perhaps because its extension was not loaded.
            Diverged: the files record a fit that diverged.
        """
        name = pretrained_model_name_or_path
        if Path(name).exists() or not is_hub_id(name):
            return cls.read(name)
        return cls._from_pretrained(
            model_id=str(name),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        return cls.read(download_model(model_id, **options))


def _require_known(options: Mapping[str, Any], push_to_hub: bool) -> None:
    """Raise TypeError for an option that :meth:`SharedFlow.save_pretrained` would not use."""
    known = set(signature(ModelHubMixin.push_to_hub).parameters) if push_to_hub else set()
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        where = "" if push_to_hub else " without push_to_hub=True"
        raise TypeError(f"save_pretrained: unexpected argument '{unknown}'{where}")


def _write_card(path: Path, content: str) -> None:
    """Write a card; keep an existing file, with a warning, if its card was edited or written by someone else."""
    if path.exists() and not is_unedited_card(path.read_text(encoding="utf-8", errors="replace")):
        logger.warning(
            "%s: kept: edited, or not written by this version of nfpi; delete it and save again for a new card",
            path,
        )
        return
    write_atomically(path, content)


def is_hub_id(name: Path | str) -> bool:
    """Return whether a name may be a repository id, `owner/name` or `name`; a path object never is."""
    if isinstance(name, Path) or name.startswith((".", "~")) or re.fullmatch(r"[^/\\]+(/[^/\\]+)?", name) is None:
        return False
    try:
        validate_repo_id(name)
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
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise FormatError(f"{name}: expected a folder or a model of the hub, received neither ({reason})") from None
