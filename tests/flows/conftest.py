import pytest
import torch

from nfpi.flows import ActNorm, Coupling, MatrixExponentialConv1x1
from nfpi.flows.glow import LowerUpperConv1x1


def _randomize(module, seed=0, amount=0.2):
    """Move every parameter at random, so that nothing is at the value it starts with (zeros above all); float64."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for part in module.modules():
        if isinstance(part, Coupling):
            # outputs of about 1, and exponents that are neither small nor beyond all bounds
            for name, std in (("weight", 0.2), ("bias", 0.5), ("log_scale", 0.1)):
                if hasattr(part.net.out, name):
                    torch.nn.init.normal_(getattr(part.net.out, name), std=std, generator=generator)
            for name, parameter in part.named_parameters(recurse=False):
                size = 1.0 if name in ("scale", "shift") else 1 / part.split[1]
                parameter.data += amount * size * torch.randn(1, generator=generator, dtype=torch.float64)
        elif not isinstance(part, torch.nn.Conv2d):
            linear = isinstance(part, (MatrixExponentialConv1x1, LowerUpperConv1x1))
            size = 0.5 if linear else 2.0 if isinstance(part, ActNorm) else 1.0
            for parameter in part.parameters(recurse=False):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                if parameter.dim() == 4:  # kernels have many entries a channel
                    noise /= parameter[0].numel() ** 0.5
                parameter.data += amount * size * noise
    return module


@pytest.fixture(scope="session")
def randomize():
    return _randomize
