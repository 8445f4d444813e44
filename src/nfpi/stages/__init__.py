"""One class a stage: its fields are the options of its subcommand, `run` does the work."""

from nfpi.stages.analyse import DrawAugmentations, DrawSamples, Embed, MapConvergence
from nfpi.stages.augment import Augment
from nfpi.stages.base import HeavyStage, Stage
from nfpi.stages.classify import TestClassifier, TrainClassifier
from nfpi.stages.data import DownloadWeights, EncodeData, Export, PrepareData
from nfpi.stages.flow import Evaluate, ImportRelease, StartFlow, TrainFlow
from nfpi.stages.generate import Generate
from nfpi.stages.prior import FitPrior
from nfpi.stages.report import Benchmark, Collect, MakeFigure, MakeTable

__all__ = [
    "Augment",
    "Benchmark",
    "Collect",
    "DownloadWeights",
    "DrawAugmentations",
    "DrawSamples",
    "Embed",
    "EncodeData",
    "Evaluate",
    "Export",
    "FitPrior",
    "Generate",
    "HeavyStage",
    "ImportRelease",
    "MakeFigure",
    "MakeTable",
    "MapConvergence",
    "PrepareData",
    "Stage",
    "StartFlow",
    "TestClassifier",
    "TrainClassifier",
    "TrainFlow",
]
