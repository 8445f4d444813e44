"""The list of all subcommands of `nfpi`."""

from nfpi.stages.base import Command, Stage
from nfpi.stages.check_device import CheckDevice
from nfpi.stages.claims import JudgeClaims
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.evidence import KeepEvidence, RebuildTables
from nfpi.stages.figure import MakeFigure
from nfpi.stages.fit_prior import FitPrior
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.model_use import AugmentFolder, Classify, Sample, Score
from nfpi.stages.new import WritePreset, WriteSchema
from nfpi.stages.prepare_data import DownloadWeights, EncodeData, Export, PrepareData
from nfpi.stages.progress import ShowLog, ShowStatus
from nfpi.stages.results import Compare, ShowCosts, Verify, WritePage
from nfpi.stages.start_flow import StartFlow
from nfpi.stages.table import Collect, MakeTable
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import ImportRelease, TrainFlow

COMMANDS: tuple[type[Command], ...] = (
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
"""All subcommands, in the order in which the command line lists them."""

STAGES = tuple(command for command in COMMANDS if issubclass(command, Stage))
