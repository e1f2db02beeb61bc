"""Numerical parts of flows: root finds, triangular solves, splines, recursions."""

from nfvi.flows.numerics.bnaf_blocks import Blocks, Layer
from nfvi.flows.numerics.bnaf_walk import walk
from nfvi.flows.numerics.in_range import in_range, product_in_range
from nfvi.flows.numerics.long_product import affine_rows
from nfvi.flows.numerics.lu_inverse import inverse_of_run
from nfvi.flows.numerics.planar_recursion import backward_recursion, forward_recursion
from nfvi.flows.numerics.rational_quadratic import RationalQuadratic, raw_size
from nfvi.flows.numerics.rootfind import solve_increasing, solve_tanh
from nfvi.flows.numerics.soft_bound import LARGEST, check_bound, soft_bound
from nfvi.flows.numerics.triangular_solve import FEW_DIMENSIONS, solve_across, solve_rows

__all__ = [
    "FEW_DIMENSIONS",
    "LARGEST",
    "Blocks",
    "Layer",
    "RationalQuadratic",
    "affine_rows",
    "backward_recursion",
    "check_bound",
    "forward_recursion",
    "in_range",
    "inverse_of_run",
    "product_in_range",
    "raw_size",
    "soft_bound",
    "solve_across",
    "solve_increasing",
    "solve_rows",
    "solve_tanh",
    "walk",
]
