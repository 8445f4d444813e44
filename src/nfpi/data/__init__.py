"""Data sets: preparation from their sources in one form on disk, and batches of them for training and evaluation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
