"""Names of :mod:`nfpi.runtime.device`."""

from nfpi.runtime.device import count_visible_gpus as count_visible_gpus
from nfpi.runtime.device import describe_device as describe_device
from nfpi.runtime.device import make_device as make_device
from nfpi.runtime.device import prepare_process as prepare_process
