"""The flow families; importing this package enters them in the registry."""

from nfvi.flows import (
    affine,
    affine_autoregressive,
    bnaf,
    householder,
    lu,
    monotone,
    nsf,
    permutation,
    planar,
    radial,
    realnvp,
    sinh_arcsinh,
    spline,
    sylvester,
    triangular,
)
from nfvi.flows.base import Flow
from nfvi.flows.call import Call, Value
from nfvi.flows.registry import FlowSpec, Option, lookup, names, register

__all__ = [
    "Call",
    "Flow",
    "FlowSpec",
    "Option",
    "Value",
    "affine",
    "affine_autoregressive",
    "bnaf",
    "householder",
    "lookup",
    "lu",
    "monotone",
    "names",
    "nsf",
    "permutation",
    "planar",
    "radial",
    "realnvp",
    "register",
    "sinh_arcsinh",
    "spline",
    "sylvester",
    "triangular",
]
