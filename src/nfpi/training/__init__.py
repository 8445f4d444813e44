"""Training of a flow: initialisation on data, epochs under a fixed or learned prior, checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
