"""Check the user's data sets before any job runs, and detect changes of their files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nfpi.config.base import ConfigError
from nfpi.config.datasets import DataError
from nfpi.runs import SPLITS
from nfpi.runtime.files import file_digest
from nfpi.runtime.manifests import digest_together
from nfpi.stages.planned import Wildcards
from nfpi.workflow.plan import Plan

if TYPE_CHECKING:
    from nfpi.data.sources.files import SourceFiles


@dataclass(frozen=True)
class Sources:
    """Input and params functions of the rules that read the user's files.

    Only Snakemake's main process reads the files, once per invocation, in the input function :meth:`check_files`:
    Snakemake calls input functions before any job runs, but may call params functions only after the job has ended. Job
    processes, on a cluster or this machine, evaluate the Snakefile again but do not compare params, so they read no
    files.

    Args:
        plan: settings and paths.
        is_main_process: whether this is Snakemake's main process.
    """

    plan: Plan
    is_main_process: bool = True
    _tokens: dict[Path, str] = field(default_factory=dict, repr=False)
    _files: dict[str, SourceFiles] = field(default_factory=dict, repr=False)

    def check_files(self, wildcards: Wildcards) -> list[str]:
        """Check the files of a data set; an input function that returns no file.

        Raises:
            ConfigError: the given folder is missing or malformed. If the splits exist already,
                :meth:`compute_content_token` raises this instead: after an error here, Snakemake would treat the splits
                as source files.
        """
        try:
            self.compute_content_token(wildcards)
        except ConfigError:
            if not self._locate_splits(wildcards).exists():
                raise
        return []

    def compute_content_token(self, wildcards: Wildcards) -> str:
        """Compute a token that changes when the files of a data set change; a params function.

        See :mod:`nfpi.data.sources.files`.

        Raises:
            ConfigError: see :meth:`check_files`.
        """
        name, splits = wildcards["dataset"], self._locate_splits(wildcards)
        config = self.plan.config.get_dataset(name, wildcards["splits"])
        if config.folder is None or not self.is_main_process:
            return ""  # downloaded or synthetic data; without the folder that it needs, prepare_data fails
        from nfpi.data.sources.files import compute_token, list_source  # imports numpy

        try:
            if name not in self._files:  # listed once for the splits of all seeds
                self._files[name] = list_source(config)
            files = self._files[name]
            if splits not in self._tokens:
                self._tokens[splits] = compute_token(files, splits) if files.names else ""
        except DataError as error:
            raise ConfigError(f"datasets.{name}: {error}") from None
        return self._tokens[splits]

    def have_changed(self, wildcards: Wildcards) -> bool:
        """Return whether a data set's files are others than those that its splits were made from; false if unknown."""
        from nfpi.data.sources.files import read_record  # imports numpy

        try:
            token = self.compute_content_token(wildcards)
            record = read_record(self._locate_splits(wildcards)) if token else None
        except (ConfigError, DataError):  # the params function raises it again, see check_files
            return False
        return record is not None and record.token != token

    def digest_weights(self, files: list[str]) -> str | None:
        """Return the digest of weights given by the user; None: they are downloaded, or there are none."""
        given = [Path(file) for file in files if Path(file).parent != Path(self.plan.downloads)]
        return digest_together(map(_digest_file, filter(Path.is_file, given)))

    def _locate_splits(self, wildcards: Wildcards) -> Path:
        """Return the folder of the splits."""
        return Path(self.plan.fill_path(SPLITS, wildcards))


@cache
def _digest_file(file: Path) -> str:
    return file_digest(file)
