from .registry import SourceImages as SourceImages
from .registry import load_source as load_source
from .registry import register_source as register_source

__all__ = ["SourceImages", "load_source", "register_source"]
