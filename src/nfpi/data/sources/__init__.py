"""Sources of data sets, one module each, and the registry that `source:` selects from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
