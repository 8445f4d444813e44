from .actnorm import ActNorm as ActNorm
from .bijection import Bijection as Bijection
from .bijection import ImageFlow as ImageFlow
from .check import FlowError as FlowError
from .check import check_flow as check_flow
from .coupling import AdditiveCoupling as AdditiveCoupling
from .coupling import AffineCoupling as AffineCoupling
from .coupling import Coupling as Coupling
from .coupling import LowRankMatrixExponentialCoupling as LowRankMatrixExponentialCoupling
from .coupling import MatrixExponentialCoupling as MatrixExponentialCoupling
from .dequantization import bits_per_dim as bits_per_dim
from .dequantization import dequantize as dequantize
from .dequantization import quantize as quantize
from .glow import GlowFlow as GlowFlow
from .matrix_exponential import MatrixExponentialConv1x1 as MatrixExponentialConv1x1
from .matrix_exponential import MatrixExponentialFlow as MatrixExponentialFlow
from .multiscale import FlowStep as FlowStep
from .multiscale import MultiscaleFlow as MultiscaleFlow
from .registry import build_flow as build_flow
from .registry import register_flow as register_flow
from .transformer import TransformerFlow as TransformerFlow
from .vectors import TransformFlow as TransformFlow

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Coupling",
    "FlowError",
    "FlowStep",
    "GlowFlow",
    "ImageFlow",
    "LowRankMatrixExponentialCoupling",
    "MatrixExponentialConv1x1",
    "MatrixExponentialCoupling",
    "MatrixExponentialFlow",
    "MultiscaleFlow",
    "TransformFlow",
    "TransformerFlow",
    "bits_per_dim",
    "build_flow",
    "check_flow",
    "dequantize",
    "quantize",
    "register_flow",
]
