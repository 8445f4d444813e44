"""Bijections on images and the multiscale flow made of them."""

from nfpi.flows.actnorm import ActNorm
from nfpi.flows.bijection import Bijection
from nfpi.flows.coupling import AdditiveCoupling, AffineCoupling, Coupling, LowRankMatrixExponentialCoupling, MatrixExponentialCoupling
from nfpi.flows.linear import MatrixExponentialConv1x1
from nfpi.flows.multiscale import Flow, MatrixExponentialFlow

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Coupling",
    "Flow",
    "LowRankMatrixExponentialCoupling",
    "MatrixExponentialConv1x1",
    "MatrixExponentialCoupling",
    "MatrixExponentialFlow",
]
