"""Normalizing flows whose class Gaussians are a fixed point of likelihood and repulsion."""

from importlib.metadata import version

import lazy_loader

__version__ = version("nfpi")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
