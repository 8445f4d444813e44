"""Names of :mod:`nfpi.runtime.precision`."""

from nfpi.runtime.precision import cpu_by_default as cpu_by_default
from nfpi.runtime.precision import standard_defaults as standard_defaults
