"""Class Gaussians in the latent space: density, divergences, statistics, and the methods that obtain them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
