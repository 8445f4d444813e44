"""What runs measured: metrics.json of each, collected, as tables, and as text for people."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
