"""Data sets: from their sources to one form on disk, and from there in batches to training and evaluation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
