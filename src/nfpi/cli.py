"""The command line: one subcommand a stage. Each reads files, calls one function, and writes files.

Options that are groups of settings take one JSON text (`--training '{"epochs": 40}'`), single settings
(`--training.epochs 40`), or both.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict

from nfpi.config.resolution import explain
from nfpi.runtime.faults import describe_fault
from nfpi.runtime.signals import EXIT_STATUS, Interrupted, interruptible
from nfpi.stages import Augment, Benchmark, Collect, DownloadWeights, DrawAugmentations, DrawSamples, Embed, EncodeData, Evaluate, Export, FitPrior, Generate, ImportRelease, MakeFigure, MakeTable, MapConvergence, PrepareData, StartFlow, TestClassifier, TrainClassifier, TrainFlow


class Commands(BaseSettings):
    """Normalizing flows with fixed-point Gaussian-mixture priors, one subcommand a stage."""

    model_config = SettingsConfigDict(
        cli_prog_name="nfpi",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
    )

    prepare_data: CliSubCommand[PrepareData]
    encode_data: CliSubCommand[EncodeData]
    download_weights: CliSubCommand[DownloadWeights]
    start_flow: CliSubCommand[StartFlow]
    fit_prior: CliSubCommand[FitPrior]
    train_flow: CliSubCommand[TrainFlow]
    import_release: CliSubCommand[ImportRelease]
    evaluate: CliSubCommand[Evaluate]
    generate: CliSubCommand[Generate]
    augment: CliSubCommand[Augment]
    train_classifier: CliSubCommand[TrainClassifier]
    test_classifier: CliSubCommand[TestClassifier]
    embed: CliSubCommand[Embed]
    map_convergence: CliSubCommand[MapConvergence]
    draw_samples: CliSubCommand[DrawSamples]
    draw_augmentations: CliSubCommand[DrawAugmentations]
    collect: CliSubCommand[Collect]
    table: CliSubCommand[MakeTable]
    figure: CliSubCommand[MakeFigure]
    export: CliSubCommand[Export]
    benchmark: CliSubCommand[Benchmark]

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], init_settings: Any, **_: Any
    ) -> tuple[Any, ...]:
        """The command line alone: no setting is taken from the environment."""
        return (init_settings,)

    def cli_cmd(self) -> None:
        """Hand over to the subcommand."""
        CliApp.run_subcommand(self)


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand, and give the status to exit with; other than 0, one line on stderr says why.

    1: a fault that a user can mend (`NFPI_TRACEBACK=1` shows where it arose); 75: stopped by SIGTERM or SIGUSR1, and
    the same command goes on; 130: stopped by Ctrl-C. Wrong usage exits with 2.
    """
    arguments = arguments if arguments is not None else sys.argv[1:]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[_LineHandler()]
    )
    for noisy in ("lightning.fabric", "lightning_fabric", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with interruptible(at_once=True):
            CliApp.run(Commands, cli_args=arguments)
    except ValidationError as error:
        return _fail(explain(error, Commands))
    except Interrupted as error:
        return _fail(str(error), EXIT_STATUS)
    except Exception as error:
        line = describe_fault(error, arguments[0] if arguments else "")
        if line is None or os.environ.get("NFPI_TRACEBACK"):
            raise
        return _fail(line)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


class _LineHandler(logging.StreamHandler):
    """Lines that do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def _fail(message: str, status: int = 1) -> int:
    print(f"nfpi: error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
