"""Normalizing flows whose class Gaussians are a fixed point of likelihood and repulsion."""

import os
from importlib.metadata import version

import lazy_loader

# OpenMP reads this when torch is loaded. Its threads would otherwise wait for each other by spinning, so that another
# process on one of the cores makes a step several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = version("nfpi")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
