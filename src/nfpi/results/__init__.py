"""Results of runs: their metrics.json, collected metrics, tables, and formatted text."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
