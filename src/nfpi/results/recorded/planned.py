"""Names of :mod:`nfpi.results.recorded.settings`."""

from nfpi.results.recorded.settings import read_planned as read_planned
from nfpi.results.recorded.settings import write_planned as write_planned
