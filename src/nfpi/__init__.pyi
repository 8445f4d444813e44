from .model import ClassConditionalFlow as ClassConditionalFlow

__version__: str
__all__ = ["ClassConditionalFlow"]
