"""Check the user's data sets before any job runs, and detect changes of their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nfpi.config import SOURCES, ConfigError, DatasetConfig
from nfpi.config.flows import FlowBlock, LevelSettings, TransformerSettings
from nfpi.runs import SPLITS
from nfpi.workflow.plan import Plan, Wildcards

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
    _tokens: dict[Path, str | ConfigError] = field(default_factory=dict, repr=False)
    _files: dict[str, SourceFiles] = field(default_factory=dict, repr=False)

    def check_files(self, wildcards: Wildcards) -> list[str]:
        """Check the files of a data set; an input function that returns no file.

        Raises:
            ConfigError: the given folder is missing or malformed, or a flow does not support the size of the images. If
                the splits exist already, :meth:`compute_content_token` raises this instead: after an error here,
                Snakemake would treat the splits as source files.
        """
        found = self._find_token_or_error(wildcards)
        if isinstance(found, ConfigError) and not self._locate_splits(wildcards).exists():
            raise found
        return []

    def compute_content_token(self, wildcards: Wildcards) -> str:
        """Compute a token that changes when the files of a data set change; a params function.

        See :mod:`nfpi.data.sources.files`.

        Raises:
            ConfigError: see :meth:`check_files`.
        """
        found = self._find_token_or_error(wildcards)
        if isinstance(found, ConfigError):
            raise found
        return found

    def _find_token_or_error(self, wildcards: Wildcards) -> str | ConfigError:
        """Return the token of the files, or the error in them."""
        name, config = wildcards["dataset"], self.plan.get_dataset_config(wildcards)
        if not self.is_main_process:
            return ""
        splits = self._locate_splits(wildcards)
        if splits not in self._tokens:
            try:
                self._tokens[splits] = self._compute_token(name, config, splits)
                self._check_size(name, config)
            except ConfigError as error:
                self._tokens[splits] = error
        return self._tokens[splits]

    def _compute_token(self, name: str, config: DatasetConfig, splits: Path) -> str:
        """Compute the token of the files, which are listed once for the splits of all seeds."""
        if config.folder is None:
            return ""  # downloaded or synthetic data; without the folder that it needs, prepare_data fails
        from nfpi.data.errors import DataError
        from nfpi.data.sources.files import compute_token, list_source  # imports numpy

        try:
            if name not in self._files:
                self._files[name] = list_source(config)
            files = self._files[name]
            return compute_token(files, splits) if files.names else ""
        except DataError as error:
            raise ConfigError(f"datasets.{name}: {error}") from None

    def _locate_splits(self, wildcards: Wildcards) -> Path:
        """Return the folder of the splits."""
        return Path(self.plan.fill_path(SPLITS, wildcards))

    def _check_size(self, name: str, config: DatasetConfig) -> None:
        """Check that all flows of the data set support the size of its images, if it is known."""
        found = _find_image_size(name, config)
        if found is None:
            return
        where, size = found
        flows = self.plan.config.for_dataset(name).flows
        for flow in sorted(set(self._list_flows(name))):
            divisor, what = _find_divisor(flows[flow])
            if any(side % divisor for side in size):
                height, width = size
                hint = "; image_size resizes the images" if config.source == "imagefolder" else ""
                raise ConfigError(
                    f"datasets.{name}: {where}: expected width and height divisible by {divisor}, for {what} of "
                    f"flows.{flow}, received {width}×{height}{hint}"
                )

    def _list_flows(self, dataset: str) -> Iterator[str]:
        """Yield the names of the flows that tables and figures need on a data set."""
        for _, experiment in self.plan.config.iterate_experiments():
            if experiment.dataset == dataset and experiment.prior is not None:
                yield experiment.flow
        for figure in self.plan.config.figures.values():
            if getattr(figure, "dataset", None) == dataset and hasattr(figure, "flow"):
                yield figure.flow


def _find_image_size(name: str, config: DatasetConfig) -> tuple[str, tuple[int, int]] | None:
    """Return where the size of a data set's images is from, and the size (H, W); None: unknown, or latents."""
    if config.vae is not None:
        return None
    if config.source != "imagefolder":
        size = SOURCES[config.source].traits.get("size")
        return None if size is None else (config.source, (size, size))
    if config.image_size is not None:
        return "image_size", (config.image_size, config.image_size)
    if config.folder is None or config.folder.is_file():
        return None
    from nfpi.data.errors import DataError
    from nfpi.data.image_files import read_image_size  # imports Pillow
    from nfpi.data.sources.imagefolder import find_first_image

    try:
        image = find_first_image(config.folder)
        return str(image), read_image_size(image)
    except DataError as error:
        raise ConfigError(f"datasets.{name}: {error}") from None


def _find_divisor(flow: FlowBlock) -> tuple[int, str]:
    """Return the number that must divide height and width of a flow's images, and the setting it comes from."""
    if isinstance(flow, LevelSettings):
        return 2 ** len(flow.num_flows), f"the {len(flow.num_flows)} levels"
    if isinstance(flow, TransformerSettings):
        return flow.patch_size, "patch_size"
    return 1, ""
