"""All settings of the project: typed, frozen, and strict about unknown keys.

`config.yaml` lists the paper's settings, and presets override some of them; :func:`resolve` combines both into a
:class:`Config`. The same settings classes are used by the config, the command line and the numerical code;
classes such as `FixedPointConfig` add λ to the settings of their method. Nothing heavy is imported here,
since the command line and the Snakefile import this package on every call.
"""

from nfpi.config.base import (
    EXECUTION,
    Augmentation,
    ConfigError,
    ExpandedText,
    Fraction,
    LocalPath,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Settings,
    Share,
    Split,
    Start,
    explain,
    list_execution_settings,
    split_settings,
    suggest,
)
from nfpi.config.claims import Claim, ClaimComparison, ComparedRow
from nfpi.config.classifiers import CLASSIFIERS, ClassifierConfig, StandardAugmentation
from nfpi.config.cluster import Cluster, JobName, Resources, compute_job_resources, count_job_threads
from nfpi.config.datasets import SOURCES, DatasetConfig
from nfpi.config.experiments import Experiment, Table, TableSettings
from nfpi.config.extensions import describe_extension_fault, hash_extension, load_extensions
from nfpi.config.figures import (
    FIGURES,
    FigureSettings,
)
from nfpi.config.flows import FLOWS, FlowConfig, GlowSettings, MatrixExponentialSettings, TransformerSettings
from nfpi.config.generation import EvaluationConfig, GenerationConfig, NfaConfig
from nfpi.config.metrics import METRICS, Metric, list_computed_metrics, metric, register_metric
from nfpi.config.presets import list_built_in_presets, merge
from nfpi.config.priors import (
    PRIORS,
    FixedPointConfig,
    FixedPointSettings,
    GradientDescentConfig,
    GradientDescentSettings,
    PriorConfig,
)
from nfpi.config.resolution import ConfigFile, PresetFile, Resolved, build_json_schema, resolve
from nfpi.config.settings import Config
from nfpi.config.training import TrainingConfig

__all__ = [
    "CLASSIFIERS",
    "EXECUTION",
    "FIGURES",
    "FLOWS",
    "METRICS",
    "PRIORS",
    "SOURCES",
    "Augmentation",
    "Claim",
    "ClaimComparison",
    "ClassifierConfig",
    "Cluster",
    "ComparedRow",
    "Config",
    "ConfigError",
    "ConfigFile",
    "DatasetConfig",
    "EvaluationConfig",
    "ExpandedText",
    "Experiment",
    "FigureSettings",
    "FixedPointConfig",
    "FixedPointSettings",
    "FlowConfig",
    "Fraction",
    "GenerationConfig",
    "GlowSettings",
    "GradientDescentConfig",
    "GradientDescentSettings",
    "JobName",
    "LocalPath",
    "MatrixExponentialSettings",
    "Metric",
    "Name",
    "NfaConfig",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "PresetFile",
    "PriorConfig",
    "Resolved",
    "Resources",
    "Seed",
    "Settings",
    "Share",
    "Split",
    "StandardAugmentation",
    "Start",
    "Table",
    "TableSettings",
    "TrainingConfig",
    "TransformerSettings",
    "build_json_schema",
    "compute_job_resources",
    "count_job_threads",
    "describe_extension_fault",
    "explain",
    "hash_extension",
    "list_built_in_presets",
    "list_computed_metrics",
    "list_execution_settings",
    "load_extensions",
    "merge",
    "metric",
    "register_metric",
    "resolve",
    "split_settings",
    "suggest",
]
