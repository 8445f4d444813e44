"""All settings of the project: typed, frozen, and strict about unknown keys.

`config.yaml` lists the paper's settings, and presets override some of them; :func:`resolve` combines both into a
:class:`Config`. The same settings classes are used by the config, the command line and the numerical code;
classes such as `FixedPointConfig` add λ to the settings of their method. Nothing heavy is imported here,
since the command line and the Snakefile import this package on every call.
"""

from nfpi.config.base import EXECUTION as EXECUTION
from nfpi.config.base import Augmentation as Augmentation
from nfpi.config.base import ConfigError as ConfigError
from nfpi.config.base import ExpandedText as ExpandedText
from nfpi.config.base import Fraction as Fraction
from nfpi.config.base import LocalPath as LocalPath
from nfpi.config.base import Name as Name
from nfpi.config.base import NonNegativeFloat as NonNegativeFloat
from nfpi.config.base import NonNegativeInt as NonNegativeInt
from nfpi.config.base import PositiveFloat as PositiveFloat
from nfpi.config.base import PositiveInt as PositiveInt
from nfpi.config.base import Seed as Seed
from nfpi.config.base import Settings as Settings
from nfpi.config.base import Share as Share
from nfpi.config.base import Split as Split
from nfpi.config.base import Start as Start
from nfpi.config.base import explain as explain
from nfpi.config.base import list_execution_settings as list_execution_settings
from nfpi.config.base import select_result_settings as select_result_settings
from nfpi.config.base import subtract_settings as subtract_settings
from nfpi.config.base import suggest as suggest
from nfpi.config.claims import Claim as Claim
from nfpi.config.claims import ComparedRow as ComparedRow
from nfpi.config.classifiers import CLASSIFIERS as CLASSIFIERS
from nfpi.config.classifiers import ClassifierConfig as ClassifierConfig
from nfpi.config.classifiers import StandardAugmentation as StandardAugmentation
from nfpi.config.cluster import Cluster as Cluster
from nfpi.config.cluster import JobName as JobName
from nfpi.config.cluster import Resources as Resources
from nfpi.config.cluster import compute_job_resources as compute_job_resources
from nfpi.config.cluster import count_job_threads as count_job_threads
from nfpi.config.datasets import SOURCES as SOURCES
from nfpi.config.datasets import DatasetConfig as DatasetConfig
from nfpi.config.experiments import TableSettings as TableSettings
from nfpi.config.extensions import describe_extension_fault as describe_extension_fault
from nfpi.config.extensions import hash_extension as hash_extension
from nfpi.config.extensions import load_extensions as load_extensions
from nfpi.config.figures import FIGURES as FIGURES
from nfpi.config.figures import FigureSettings as FigureSettings
from nfpi.config.flows import FLOWS as FLOWS
from nfpi.config.flows import FlowConfig as FlowConfig
from nfpi.config.flows import GlowSettings as GlowSettings
from nfpi.config.flows import MatrixExponentialSettings as MatrixExponentialSettings
from nfpi.config.flows import TransformerSettings as TransformerSettings
from nfpi.config.generation import EvaluationConfig as EvaluationConfig
from nfpi.config.generation import GenerationConfig as GenerationConfig
from nfpi.config.generation import NfaConfig as NfaConfig
from nfpi.config.metrics import METRICS as METRICS
from nfpi.config.metrics import list_computed_metrics as list_computed_metrics
from nfpi.config.metrics import metric as metric
from nfpi.config.metrics import register_metric as register_metric
from nfpi.config.presets import list_built_in_presets as list_built_in_presets
from nfpi.config.presets import merge as merge
from nfpi.config.priors import PRIORS as PRIORS
from nfpi.config.priors import FixedPointConfig as FixedPointConfig
from nfpi.config.priors import FixedPointSettings as FixedPointSettings
from nfpi.config.priors import GradientDescentConfig as GradientDescentConfig
from nfpi.config.priors import GradientDescentSettings as GradientDescentSettings
from nfpi.config.priors import PriorConfig as PriorConfig
from nfpi.config.resolution import ConfigFile as ConfigFile
from nfpi.config.resolution import Resolved as Resolved
from nfpi.config.resolution import build_json_schema as build_json_schema
from nfpi.config.resolution import resolve as resolve
from nfpi.config.settings import Config as Config
from nfpi.config.training import TrainingConfig as TrainingConfig
