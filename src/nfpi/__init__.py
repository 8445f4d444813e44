"""Normalizing flows whose class Gaussians are a fixed point of likelihood and repulsion."""

from importlib.metadata import version

__version__ = version("nfpi")
