from .divergence import pairwise_kld as pairwise_kld
from .divergence import separation_loss as separation_loss
from .fixed_point import FixedPointConfig as FixedPointConfig
from .fixed_point import FixedPointDiverged as FixedPointDiverged
from .fixed_point import FixedPointResult as FixedPointResult
from .fixed_point import fit_fixed_point as fit_fixed_point
from .gaussian import GaussianPrior as GaussianPrior
from .gradient_descent import GaussianLearner as GaussianLearner
from .gradient_descent import GradientDescentConfig as GradientDescentConfig
from .learner import PriorLearner as PriorLearner
from .learner import ValueRange as ValueRange
from .registry import initial_prior as initial_prior
from .registry import register_prior as register_prior
from .statistics import ClassStatistics as ClassStatistics

__all__ = [
    "ClassStatistics",
    "FixedPointConfig",
    "FixedPointDiverged",
    "FixedPointResult",
    "GaussianLearner",
    "GaussianPrior",
    "GradientDescentConfig",
    "PriorLearner",
    "ValueRange",
    "fit_fixed_point",
    "initial_prior",
    "pairwise_kld",
    "register_prior",
    "separation_loss",
]
