"""Options and outputs of each stage and command, without the heavy imports of their implementations."""

from nfpi.stages.options.base import Command, Stage
from nfpi.stages.options.check import CheckDevice
from nfpi.stages.options.classifiers import TestClassifier, TrainClassifier
from nfpi.stages.options.data import DownloadWeights, EncodeData, Export, PrepareData
from nfpi.stages.options.evidence import KeepEvidence, RebuildTables
from nfpi.stages.options.flow import Augment, Evaluate, FitPrior, Generate, ImportRelease, StartFlow, TrainFlow
from nfpi.stages.options.model import AugmentFolder, Classify, Sample, Score
from nfpi.stages.options.new import WritePreset
from nfpi.stages.options.results import (
    Benchmark,
    Collect,
    Compare,
    JudgeClaims,
    MakeFigure,
    MakeTable,
    ShowCosts,
    WritePage,
    WriteSchema,
)
from nfpi.stages.options.status import ShowLog, ShowStatus
from nfpi.stages.options.verify import Verify

STAGES: tuple[type[Stage], ...] = (
    PrepareData,
    EncodeData,
    DownloadWeights,
    StartFlow,
    FitPrior,
    TrainFlow,
    ImportRelease,
    Evaluate,
    Generate,
    Augment,
    TrainClassifier,
    TestClassifier,
    Collect,
    MakeTable,
    JudgeClaims,
    MakeFigure,
    Export,
    WriteSchema,
    Benchmark,
)
"""All stages, in the order in which the command line lists them."""

COMMANDS: tuple[type[Command], ...] = (
    *STAGES,
    Classify,
    Score,
    Sample,
    AugmentFolder,
    WritePreset,
    CheckDevice,
    ShowStatus,
    ShowLog,
    WritePage,
    ShowCosts,
    Compare,
    Verify,
    KeepEvidence,
    RebuildTables,
)
"""All subcommands: the stages, and commands without declared outputs."""

__all__ = [
    "COMMANDS",
    "STAGES",
    "Augment",
    "AugmentFolder",
    "Benchmark",
    "CheckDevice",
    "Classify",
    "Collect",
    "Command",
    "Compare",
    "DownloadWeights",
    "EncodeData",
    "Evaluate",
    "Export",
    "FitPrior",
    "Generate",
    "ImportRelease",
    "JudgeClaims",
    "KeepEvidence",
    "MakeFigure",
    "MakeTable",
    "PrepareData",
    "RebuildTables",
    "Sample",
    "Score",
    "ShowCosts",
    "ShowLog",
    "ShowStatus",
    "Stage",
    "StartFlow",
    "TestClassifier",
    "TrainClassifier",
    "TrainFlow",
    "Verify",
    "WritePage",
    "WritePreset",
    "WriteSchema",
]
