"""Data sets of the user's own: checked before anything runs, and read again when a file of theirs has changed."""

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
    """What the rules that read data sets ask about the files of these.

    Only the process that plans looks at the files, once a call. It does so in an input function, which Snakemake always
    calls before any job runs; a params function may be called as late as when the job has ended. The processes that run
    jobs, on a cluster or here, plan them anew, but Snakemake compares no params there.

    Args:
        plan: settings and paths.
        plans: whether this process is the one that plans.
    """

    plan: Plan
    plans: bool = True
    _found: dict[Path, str | ConfigError] = field(default_factory=dict, repr=False)
    _listed: dict[str, SourceFiles] = field(default_factory=dict, repr=False)

    def checked(self, wildcards: Wildcards) -> list[str]:
        """Input function that names no file: look at the files of a data set.

        Raises:
            ConfigError: its folder is missing or ill-formed, or its images have a size that a flow cannot take. Where
                splits have been made, `content` raises it: Snakemake would take them for files that no rule makes.
        """
        found = self._find(wildcards)
        if isinstance(found, ConfigError) and not self._splits(wildcards).exists():
            raise found
        return []

    def content(self, wildcards: Wildcards) -> str:
        """Params function: a text that differs when the files of a data set do (see :mod:`nfpi.data.sources.files`).

        Raises:
            ConfigError: see :meth:`checked`.
        """
        found = self._find(wildcards)
        if isinstance(found, ConfigError):
            raise found
        return found

    def _find(self, wildcards: Wildcards) -> str | ConfigError:
        """The token of the files, or what is wrong with them."""
        name, config = wildcards["dataset"], self.plan.dataset(wildcards)
        if not self.plans:
            return ""
        splits = self._splits(wildcards)
        if splits not in self._found:
            try:
                self._found[splits] = self._token(name, config, splits)
                self._check_size(name, config)
            except ConfigError as error:
                self._found[splits] = error
        return self._found[splits]

    def _token(self, name: str, config: DatasetConfig, splits: Path) -> str:
        """Compute the token of the files, which are listed once, however many seeds have splits of their own."""
        if config.folder is None:
            return ""  # downloaded, or made, or not named yet: a plan may be looked at without
        from nfpi.data.errors import DataError
        from nfpi.data.sources.files import list_source, token_of  # imports numpy

        try:
            if name not in self._listed:
                self._listed[name] = list_source(config)
            files = self._listed[name]
            return token_of(files, splits) if files.names else ""
        except DataError as error:
            raise ConfigError(f"datasets.{name}: {error}") from None

    def _splits(self, wildcards: Wildcards) -> Path:
        return Path(self.plan.path(SPLITS, wildcards))

    def _check_size(self, name: str, config: DatasetConfig) -> None:
        """Compare the size of the images, where it is known, with what the flows of the data set's runs can take."""
        found = _image_size(name, config)
        if found is None:
            return
        where, size = found
        flows = self.plan.config.for_dataset(name).flows
        for flow in sorted(set(self._flows(name))):
            divisor, what = _divisor(flows[flow])
            if any(side % divisor for side in size):
                height, width = size
                hint = ", or set image_size" if config.source == "imagefolder" else ""
                raise ConfigError(
                    f"datasets.{name}: {where}: expected a width and height that {divisor} divides, for {what} of "
                    f"flows.{flow}{hint}, received {width}×{height}"
                )

    def _flows(self, dataset: str) -> Iterator[str]:
        """Names of the flows that tables and figures train on a data set."""
        for _, experiment in self.plan.config.experiments():
            if experiment.dataset == dataset and experiment.prior is not None:
                yield experiment.flow
        for figure in self.plan.config.figures.values():
            if getattr(figure, "dataset", None) == dataset and hasattr(figure, "flow"):
                yield figure.flow


def _image_size(name: str, config: DatasetConfig) -> tuple[str, tuple[int, int]] | None:
    """Where the size of a data set's images is stated, and the size (H, W); None: it is not, or they are latents."""
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
    from nfpi.data.sources.imagefolder import first_image

    try:
        image = first_image(config.folder)
        return str(image), read_image_size(image)
    except DataError as error:
        raise ConfigError(f"datasets.{name}: {error}") from None


def _divisor(flow: FlowBlock) -> tuple[int, str]:
    """What must divide height and width of the images that a flow takes, and why."""
    if isinstance(flow, LevelSettings):
        return 2 ** len(flow.num_flows), f"the {len(flow.num_flows)} levels"
    if isinstance(flow, TransformerSettings):
        return flow.patch_size, "patch_size"
    return 1, ""
