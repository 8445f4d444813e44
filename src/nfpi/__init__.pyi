from .diagnosis import diagnose as diagnose
from .diagnosis import draw_diagnosis as draw_diagnosis
from .model import ClassConditionalFlow as ClassConditionalFlow

__version__: str
__all__ = ["ClassConditionalFlow", "diagnose", "draw_diagnosis"]
