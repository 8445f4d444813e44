from .class_conditional import ClassConditionalFlow as ClassConditionalFlow
from .trained import CONFIG as CONFIG
from .trained import WEIGHTS as WEIGHTS
from .trained import TrainedFlow as TrainedFlow

__all__ = ["CONFIG", "WEIGHTS", "ClassConditionalFlow", "TrainedFlow"]
