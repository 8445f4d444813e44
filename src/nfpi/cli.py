"""The command line: one subcommand a stage. Each reads files, calls one function, and writes files.

Options that are groups of settings take one JSON text (`--training '{"epochs": 40}'`), single settings
(`--training.epochs 40`), or both. Everything heavy is imported by the stage that needs it, so that help is quick.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict

from nfpi.config import (
    ClassifierConfig,
    DatasetConfig,
    EvaluationConfig,
    FlowConfig,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PriorConfig,
    Split,
    Start,
    Table,
    TrainingConfig,
    explain,
)

if TYPE_CHECKING:
    import torch

    from nfpi.priors import FixedPointDiverged

logger = logging.getLogger(__name__)


class Stage(BaseModel):
    """A subcommand."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def run(self) -> None:
        """Do the work."""
        raise NotImplementedError

    def mark(self, fault: FixedPointDiverged) -> None:
        """Write to all outputs that the fit this run depends on diverged."""
        raise fault

    def cli_cmd(self) -> None:
        """Do the work; where a fit diverged, that is the result."""
        if isinstance(self, HeavyStage):
            from nfpi.priors import FixedPointDiverged

            try:
                self.run()
            except FixedPointDiverged as fault:
                self.mark(fault)
                logger.warning("%s", fault)
        else:
            self.run()


class HeavyStage(Stage):
    """A stage that works with tensors."""


class PrepareData(HeavyStage):
    """Write a data set's splits in the one on-disk form, downloading it first where it is not in a folder."""

    name: Name = "digits"
    """what the data set is called"""
    dataset: DatasetConfig = DatasetConfig()
    download_folder: Path = Path("results/downloads")
    """where downloads are kept"""
    output: Path
    """folder of the splits: output/{train,validation,test}"""

    def run(self) -> None:
        """Prepare the three splits."""
        from nfpi.data import prepare_dataset

        prepare_dataset(self.name, self.dataset, self.output, self.download_folder)


class StartFlow(HeavyStage):
    """Initialise the flow and the Gaussians on data, and train the epochs before the fit."""

    data: Path
    """folder of the splits"""
    flow: FlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    start: Start = "data"
    """initial Gaussians: class means with class variances (data) or with identity covariances"""
    seed: NonNegativeInt = 0
    output: Path
    """folder of state.safetensors, prior.safetensors, statistics.safetensors and log.csv"""

    def run(self) -> None:
        """Start one seed."""
        from nfpi.devices import make_fabric
        from nfpi.serialization import save_prior, save_statistics
        from nfpi.training import start_training

        fabric = make_fabric(self.training.precision)
        data = _training_data(self.data, self.training, fabric.device)
        begun = start_training(data, self.flow, self.start, self.seed, fabric)
        header = {"start": self.start, "seed": self.seed}
        save_prior(self.output / "prior.safetensors", begun.prior, {**header, "weight": 0.0})
        save_statistics(self.output / "statistics.safetensors", begun.statistics, header)
        _write_log(self.output / "log.csv", begun.state.log)
        begun.state.save(self.output / "state.safetensors", {**header, "training": self.training.model_dump()})


class FitPrior(HeavyStage):
    """Fit the Gaussians by fixed-point iteration (Eqs. 5-7). A fit that diverges is a result and ends well."""

    statistics: Path
    """statistics.safetensors of a start"""
    initial: Path
    """prior.safetensors of the same start"""
    prior: PriorConfig = PriorConfig()
    weight: NonNegativeFloat
    """λ of Eq. 4"""
    output: Path
    """the fitted prior, a safetensors file"""
    iterations: Path
    """table of the residuals, an iteration a row (csv)"""

    def run(self) -> None:
        """Iterate to the fixed point."""
        from nfpi.priors import FixedPointConfig, FixedPointDiverged, fit_fixed_point
        from nfpi.serialization import load_prior, load_statistics, save_prior

        settings = self.prior.model_dump(exclude={"start"})
        initial, header = load_prior(self.initial)
        try:
            result = fit_fixed_point(
                load_statistics(self.statistics), FixedPointConfig(weight=self.weight, **settings), initial
            )
        except FixedPointDiverged as fault:
            self._write_residuals(fault.residuals)
            fault.context = {"seed": header["seed"], "prior": self.prior.model_dump()}
            raise
        if not result.converged:
            logger.warning("not converged after %d iterations: the last Gaussians are taken", result.iterations)
        logger.info("λ = %g: %d iterations, converged: %s", self.weight, result.iterations, result.converged)
        self._write_residuals(result.residuals.tolist())
        header |= {"weight": self.weight, "settings": self.prior.model_dump()}
        header |= {"iterations": result.iterations, "converged": result.converged}
        save_prior(self.output, result.prior, header)

    def _write_residuals(self, residuals: list[Any]) -> None:
        rows = [
            {"iteration": index, "mean_residual": mean, "variance_residual": variance}
            for index, (mean, variance) in enumerate(residuals, 1)
        ]
        _write_rows(self.iterations, ["iteration", "mean_residual", "variance_residual"], rows)

    def mark(self, fault: FixedPointDiverged) -> None:
        """The prior is « diverged »."""
        from nfpi.outcome import mark_tensors

        mark_tensors(self.output, fault)


class TrainFlow(HeavyStage):
    """Train the flow under its prior, from where the start left it. A run that was cut goes on by itself."""

    data: Path
    """folder of the splits"""
    state: Path
    """state.safetensors of a start"""
    prior: Path
    """the Gaussians to train under, fitted or initial"""
    training: TrainingConfig = TrainingConfig()
    output: Path
    """folder of flow.safetensors (averaged weights), prior.safetensors and log.csv"""

    def run(self) -> None:
        """Train the remaining epochs."""
        from nfpi.devices import make_fabric
        from nfpi.files import file_digest
        from nfpi.metrics import config_hash
        from nfpi.serialization import load_prior, save_flow, save_prior
        from nfpi.training import TrainingState, continue_training

        prior, prior_header = load_prior(self.prior)
        fabric = make_fabric(self.training.precision)
        data = _training_data(self.data, self.training, fabric.device)
        checkpoint = self.output / ".checkpoint.safetensors"
        fingerprint = config_hash(
            {
                "training": self.training.model_dump(exclude={"checkpoint_minutes", "workers"}),
                "state": file_digest(self.state),
                "prior": file_digest(self.prior),
                "data": data.train.meta["sha256"],
            }
        )
        state, header = TrainingState.load(self.state, self.training, data.steps_per_epoch, fabric.device)
        if checkpoint.is_file():
            resumed, found = TrainingState.load(checkpoint, self.training, data.steps_per_epoch, fabric.device)
            if found.get("fingerprint") == fingerprint:
                logger.info("%s: going on from step %d", checkpoint, resumed.step)
                state = resumed
            else:
                logger.warning("%s: left by other settings, not used", checkpoint)
        state = continue_training(state, prior, data, fabric, checkpoint, {"fingerprint": fingerprint})
        save_prior(self.output / "prior.safetensors", prior, prior_header)
        _write_log(self.output / "log.csv", state.log)
        save_flow(
            self.output / "flow.safetensors",
            state.averaged_flow,
            {
                "seed": state.seed,
                "start": header["start"],
                "step": state.step,
                "training": self.training.model_dump(),
                "data": {
                    "name": data.train.meta["name"],
                    "classes": data.train.classes,
                    "flip": data.train.meta["extra"]["flip"],
                },
            },
        )
        checkpoint.unlink(missing_ok=True)

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to train under."""
        from nfpi.outcome import mark_tensors

        mark_tensors(self.output / "flow.safetensors", fault)
        mark_tensors(self.output / "prior.safetensors", fault)
        _write_log(self.output / "log.csv", [])


class Evaluate(HeavyStage):
    """Measure NF-Acc, top-5 and bits/dim of a trained flow, on the validation and the test split."""

    data: Path
    """folder of the splits"""
    flow: Path
    """flow.safetensors"""
    prior: Path
    """prior.safetensors beside it"""
    evaluation: EvaluationConfig = EvaluationConfig()
    output: Path
    """metrics.json"""

    def run(self) -> None:
        """Score both splits."""
        from nfpi.data import read_image_set
        from nfpi.devices import describe_device, make_fabric
        from nfpi.evaluation import evaluate_flow
        from nfpi.metrics import write_metrics
        from nfpi.serialization import load_flow, load_prior

        began = time.monotonic()
        flow, header = load_flow(self.flow)
        prior, prior_header = load_prior(self.prior)
        device = make_fabric().device
        grey_noise = header["training"]["grey_noise"]
        splits: tuple[Split, ...] = ("validation", "test")
        validation, test = (
            evaluate_flow(
                flow.to(device),
                prior,
                read_image_set(self.data / split),
                batch_size=self.evaluation.batch_size,
                seed=header["seed"],
                grey_noise=grey_noise,
                device=device,
            )
            for split in splits
        )
        write_metrics(
            self.output,
            {
                "nf_acc": test.nf_acc,
                "nf_top5": test.nf_top5,
                "bits_per_dim": test.bits_per_dim,
                "validation_nf_acc": validation.nf_acc,
                "validation_bits_per_dim": validation.bits_per_dim,
            },
            n=test.n,
            seed=header["seed"],
            settings={"flow": header, "prior": prior_header},
            device=describe_device(device),
            seconds=time.monotonic() - began,
        )
        logger.info("NF-Acc %.2f %%, %.4f bits/dim on %d test images", test.nf_acc, test.bits_per_dim, test.n)

    def mark(self, fault: FixedPointDiverged) -> None:
        """The metrics are « diverged »."""
        _mark_metrics(self.output, fault)


class Generate(HeavyStage):
    """Draw labelled images from a trained flow, as many of each class, in the on-disk form of data sets."""

    flow: Path
    """flow.safetensors"""
    prior: Path
    """prior.safetensors beside it"""
    temperature: PositiveFloat = 1.0
    """scales the deviations from the class means"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000
    seed: NonNegativeInt = 0
    output: Path
    """folder of the images"""

    def run(self) -> None:
        """Sample and write, a batch at a time."""
        from nfpi.data import ImageSetWriter
        from nfpi.devices import make_fabric
        from nfpi.sampling import balanced_labels, sample_images
        from nfpi.serialization import load_flow, load_prior

        flow, header = load_flow(self.flow)
        prior, _ = load_prior(self.prior)
        device = make_fabric().device
        labels = balanced_labels(prior.num_classes, self.per_class)
        channels, height, width = flow.shape
        with ImageSetWriter(
            self.output,
            len(labels),
            (height, width, channels),
            header["data"]["classes"],
            name=header["data"]["name"],
            split="generated",
            temperature=self.temperature,
            seed=self.seed,
            flip=header["data"]["flip"],
        ) as writer:
            for images, classes in sample_images(
                flow.to(device),
                prior,
                labels,
                temperature=self.temperature,
                seed=self.seed,
                batch_size=self.batch_size,
                device=device,
            ):
                writer.append(images.permute(0, 2, 3, 1).numpy(), classes.numpy())

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to draw from."""
        from nfpi.outcome import mark_images

        mark_images(self.output, fault)


class TrainClassifier(HeavyStage):
    """Train a ResNet18 on generated images, real ones or both, and measure it on the real validation split."""

    data: Path
    """folder of the splits"""
    generated: Path
    """folder of the generated images"""
    classifier: ClassifierConfig = ClassifierConfig()
    seed: NonNegativeInt = 0
    output: Path
    """folder of model.safetensors, metrics.json and log.csv"""

    def run(self) -> None:
        """Train on what `train_on` says."""
        import torch

        from nfpi.classifiers import joined, small_image_resnet18, train_classifier
        from nfpi.data import read_image_set
        from nfpi.devices import describe_device, make_fabric
        from nfpi.metrics import write_metrics
        from nfpi.outcome import raise_if_marked
        from nfpi.randomness import derive_seed
        from nfpi.serialization import save_tensors

        began = time.monotonic()
        raise_if_marked(self.generated / "meta.json")
        generated = read_image_set(self.generated)
        train = generated
        if self.classifier.train_on != "generated":
            real = read_image_set(self.data / "train")
            train = real if self.classifier.train_on == "real" else joined(real, generated)
        validation = read_image_set(self.data / "validation")
        fabric = make_fabric(self.classifier.precision)
        torch.manual_seed(derive_seed(self.seed, "resnet18"))
        architecture = {"num_classes": train.num_classes, "in_channels": train.shape[0]}
        trained = train_classifier(
            small_image_resnet18(**architecture), train, validation, self.classifier, self.seed, fabric
        )
        settings = {
            "classifier": self.classifier.model_dump(),
            "architecture": architecture,
            "temperature": generated.meta["extra"].get("temperature"),
            "images": len(train),
        }
        save_tensors(self.output / "model.safetensors", trained.model.state_dict(), {"seed": self.seed, **settings})
        _write_log(self.output / "log.csv", trained.log)
        write_metrics(
            self.output / "metrics.json",
            {"validation_cnn_acc": trained.validation_acc},
            n=len(validation),
            seed=self.seed,
            settings=settings,
            device=describe_device(fabric.device),
            seconds=time.monotonic() - began,
        )

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to learn from."""
        from nfpi.outcome import mark_tensors

        mark_tensors(self.output / "model.safetensors", fault)
        _write_log(self.output / "log.csv", [])
        _mark_metrics(self.output / "metrics.json", fault)


class TestClassifier(HeavyStage):
    """Choose the classifier that is best on the validation split, and test that one, once (CNN-Acc)."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    candidates: CliPositionalArg[list[Path]]
    """folders that train-classifier left, one for each temperature"""
    data: Path
    """folder of the splits"""
    output: Path
    """metrics.json"""

    def run(self) -> None:
        """Choose by validation accuracy, then test."""
        from nfpi.classifiers import classifier_accuracy, small_image_resnet18
        from nfpi.data import read_image_set
        from nfpi.devices import describe_device, make_fabric
        from nfpi.metrics import write_metrics
        from nfpi.outcome import raise_if_marked
        from nfpi.serialization import load_tensors

        began = time.monotonic()
        accuracies = {}
        for folder in self.candidates:
            raise_if_marked(folder / "metrics.json")
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
            accuracies[folder] = metrics["validation_cnn_acc"]
        best = max(accuracies, key=lambda folder: accuracies[folder])
        weights, header = load_tensors(best / "model.safetensors")
        model = small_image_resnet18(**header["architecture"])
        model.load_state_dict(weights)
        test = read_image_set(self.data / "test")
        device = make_fabric().device
        accuracy = classifier_accuracy(model.to(device), test, device)
        chosen = {"temperature": header["temperature"]} if header["temperature"] is not None else {}
        write_metrics(
            self.output,
            {"cnn_acc": accuracy, "validation_cnn_acc": accuracies[best], **chosen},
            n=len(test),
            seed=header["seed"],
            settings={**header, "compared": {folder.name: value for folder, value in accuracies.items()}},
            device=describe_device(device),
            seconds=time.monotonic() - began,
        )
        logger.info("CNN-Acc %.2f %% on %d test images", accuracy, len(test))

    def mark(self, fault: FixedPointDiverged) -> None:
        """The metrics are « diverged »."""
        _mark_metrics(self.output, fault)


class Collect(Stage):
    """Collect the metrics.json of many runs into one table, a value a row."""

    metrics: CliPositionalArg[list[Path]]
    """metrics.json files"""
    root: Path
    """folder that the runs lie under, results/{preset}"""
    output: Path
    """csv file"""

    def run(self) -> None:
        """Read all, write one."""
        from nfpi.metrics import collect, write_csv

        write_csv(collect(self.metrics, self.root), self.output)


class MakeTable(Stage):
    """Make a table of the paper (csv, markdown, LaTeX) from collected metrics, beside the paper's numbers."""

    name: Name
    """name of the table, and of its files"""
    table: Table
    priors: dict[Name, PriorConfig]
    """settings of the priors that the table names"""
    metrics: Path
    """what `collect` wrote"""
    reference: Path
    """the paper's numbers (csv)"""
    output: Path
    """folder"""

    def run(self) -> None:
        """Lay out and write."""
        from nfpi.metrics import read_csv
        from nfpi.tables import accuracy_table, read_reference, write_table

        frame = accuracy_table(read_csv(self.metrics), self.table, read_reference(self.reference), self.priors)
        write_table(frame, self.output, self.name, self.table.title)


class MakeFigure(Stage):
    """Draw a figure (png, pdf)."""

    name: Literal["accuracy_against_weight"]
    metrics: Path
    """csv of the table it is drawn from"""
    output: Path
    """file name without its suffix"""

    def run(self) -> None:
        """Draw and write."""
        from nfpi.figures import accuracy_against_weight, save_figure
        from nfpi.tables import read_table

        save_figure(accuracy_against_weight(read_table(self.metrics)), self.output)


class Export(HeavyStage):
    """Write an image set (real, generated or augmented) in a form that other programs read."""

    images: Path
    """folder of the image set"""
    format: Literal["imagefolder"] = "imagefolder"
    """imagefolder: output/class/NNNNN.png"""
    output: Path
    """folder"""

    def run(self) -> None:
        """Read and write."""
        from nfpi.data import export_imagefolder, read_image_set
        from nfpi.outcome import raise_if_marked

        raise_if_marked(self.images / "meta.json")
        export_imagefolder(read_image_set(self.images), self.output)


class Benchmark(HeavyStage):
    """Measure what the project is to be fast at, each as a ratio to a named reference in one run."""

    output: Path
    """folder of benchmark.csv and benchmark.md"""
    repeats: PositiveInt = 7
    """runs of each side; medians are given"""

    def run(self) -> None:
        """Measure and write."""
        from nfpi.benchmark import run_benchmarks

        run_benchmarks(self.output, self.repeats)


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
    start_flow: CliSubCommand[StartFlow]
    fit_prior: CliSubCommand[FitPrior]
    train_flow: CliSubCommand[TrainFlow]
    evaluate: CliSubCommand[Evaluate]
    generate: CliSubCommand[Generate]
    train_classifier: CliSubCommand[TrainClassifier]
    test_classifier: CliSubCommand[TestClassifier]
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
    """Run a subcommand; a fault that a user can mend ends in one line on stderr and status 1.

    `NFPI_TRACEBACK=1` shows where it arose.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[_LineHandler()]
    )
    for noisy in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        CliApp.run(Commands, cli_args=arguments if arguments is not None else sys.argv[1:])
    except ValidationError as error:
        return _fail(explain(error, Commands))
    except (ValueError, ArithmeticError, OSError, MemoryError) as error:
        if os.environ.get("NFPI_TRACEBACK"):
            raise
        return _fail(" ".join(str(error).split()) or type(error).__name__)
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


def _training_data(folder: Path, config: TrainingConfig, device: torch.device) -> Any:
    from nfpi.data import read_image_set
    from nfpi.training import TrainingData

    return TrainingData(read_image_set(folder / "train"), read_image_set(folder / "validation"), config, device)


def _write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    from nfpi.metrics import write_csv

    write_csv(pd.DataFrame(rows, columns=columns), path)


def _write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """An epoch a row."""
    _write_rows(path, list(rows[0]) if rows else ["epoch"], rows)


def _mark_metrics(path: Path, fault: FixedPointDiverged) -> None:
    from nfpi.metrics import write_metrics
    from nfpi.outcome import divergence_record

    write_metrics(
        path,
        {},
        n=0,
        seed=fault.context.get("seed", 0),
        settings=fault.context,
        device="none",
        seconds=0.0,
        diverged=divergence_record(fault),
    )


if __name__ == "__main__":
    sys.exit(main())
