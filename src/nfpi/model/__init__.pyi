from .class_conditional import ClassConditionalFlow as ClassConditionalFlow
from .class_conditional import TrainedFlow as TrainedFlow
from .files import CONFIG as CONFIG
from .files import WEIGHTS as WEIGHTS

__all__ = ["CONFIG", "WEIGHTS", "ClassConditionalFlow", "TrainedFlow"]
