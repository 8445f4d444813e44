"""Names of :mod:`nfpi.runtime.allocation`."""

from nfpi.runtime.allocation import CHOICE as CHOICE
from nfpi.runtime.allocation import HIDING as HIDING
from nfpi.runtime.allocation import VISIBLE as VISIBLE
