from .class_conditional import ClassConditionalFlow as ClassConditionalFlow
from .files import CONFIG as CONFIG
from .files import WEIGHTS as WEIGHTS

__all__ = ["CONFIG", "WEIGHTS", "ClassConditionalFlow"]
