"""All settings of the project: typed, frozen, and strict about unknown keys.

`config.yaml` lists the paper's settings, and presets override some of them; :func:`resolve` combines both into a
:class:`Config`. The same settings classes are used by the config, the command line and the numerical code;
classes such as `FixedPointConfig` add λ to the settings of their method. Nothing heavy is imported here,
since the command line and the Snakefile import this package on every call. The names below are for users' code; the
project imports from the modules.
"""

from nfpi.config.base import ConfigError as ConfigError
from nfpi.config.base import LocalPath as LocalPath
from nfpi.config.base import Settings as Settings
from nfpi.config.classifiers import ClassifierConfig as ClassifierConfig
from nfpi.config.datasets import DatasetConfig as DatasetConfig
from nfpi.config.experiments import FigureSettings as FigureSettings
from nfpi.config.experiments import TableSettings as TableSettings
from nfpi.config.extensions import load_extensions as load_extensions
from nfpi.config.flows import FlowConfig as FlowConfig
from nfpi.config.flows import GenerationConfig as GenerationConfig
from nfpi.config.flows import GlowSettings as GlowSettings
from nfpi.config.flows import MatrixExponentialSettings as MatrixExponentialSettings
from nfpi.config.flows import NfaConfig as NfaConfig
from nfpi.config.flows import TrainingConfig as TrainingConfig
from nfpi.config.flows import TransformerSettings as TransformerSettings
from nfpi.config.flows import ZukoSettings as ZukoSettings
from nfpi.config.resolution import resolve as resolve
from nfpi.config.settings import Config as Config
