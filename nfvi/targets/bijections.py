"""From R^k to a site's support: torch's ``biject_to`` and the matrices that it lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import CholeskyTransform
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import ComposeTransform

__all__ = ["LowerCholesky", "bare", "bijection", "same_constraint", "support_of"]


class LowerCholesky(Transform):
    """x in R^{K(K+1)/2} to a lower-triangular K x K matrix with diagonal exp(x_ii) > 0.

    The vector fills the triangle row by row, and log|det| of the map is the sum of the x_ii.
    Torch's ``LowerCholeskyTransform`` starts from K x K numbers of which it ignores half, and so
    is no bijection and has no Jacobian.
    """

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LowerCholesky)

    def _call(self, x: Tensor) -> Tensor:
        k = _order(x.shape[-1])
        rows, columns = torch.tril_indices(k, k, device=x.device)
        full = x.new_zeros(*x.shape[:-1], k, k)
        full[..., rows, columns] = x
        return full.tril(-1) + torch.diag_embed(full.diagonal(dim1=-2, dim2=-1).exp())

    def _inverse(self, y: Tensor) -> Tensor:
        k = y.shape[-1]
        rows, columns = torch.tril_indices(k, k, device=y.device)
        full = y.tril(-1) + torch.diag_embed(y.diagonal(dim1=-2, dim2=-1).log())
        return full[..., rows, columns]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx|, one number for each matrix."""
        return y.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        """(\\*, K(K+1)/2) -> (\\*, K, K)."""
        k = _order(shape[-1])
        return torch.Size((*shape[:-1], k, k))

    def inverse_shape(self, shape: Any) -> torch.Size:
        """(\\*, K, K) -> (\\*, K(K+1)/2)."""
        k = shape[-1]
        return torch.Size((*shape[:-2], k * (k + 1) // 2))


def bijection(support: constraints.Constraint) -> Transform | None:
    """The map from R^k onto a support; ``None`` if that is R^k itself.

    Raises:
        NotImplementedError: the support is not the image of a smooth bijection, a sphere say.
    """
    # How many dimensions count as one event does not matter: the caller sums the log-det over all.
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.real:
        return None
    if support is constraints.lower_cholesky:
        return LowerCholesky()
    if support in (constraints.positive_definite, constraints.positive_semidefinite):
        return ComposeTransform([LowerCholesky(), CholeskyTransform().inv])
    found: Transform = biject_to(support)
    return found


def bare(fn: Any) -> Any:
    """A distribution without ``to_event``, ``mask`` and ``expand`` around it."""
    while isinstance(fn, (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def support_of(fn: Any) -> constraints.Constraint:
    """The set that the draws of a distribution lie in.

    A distribution of angles calls it the real line, on which its periodic density has no finite
    integral; here it is [−π, π].
    """
    base = bare(fn)
    if isinstance(base, (dist.VonMises, dist.SineBivariateVonMises)):
        return constraints.interval(-math.pi, math.pi)
    support: constraints.Constraint = fn.support
    return support


def same_constraint(a: Any, b: Any) -> bool:
    """Whether two constraints are of one kind with equal bounds."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same_constraint, a, b))
    if isinstance(a, constraints.Constraint) and type(a) is type(b):
        mine, other = _fields(a), _fields(b)
        return mine.keys() == other.keys() and all(
            same_constraint(mine[key], other[key]) for key in mine
        )
    return type(a) is type(b) and bool(a == b)


def _fields(constraint: constraints.Constraint) -> Mapping[str, Any]:
    return {key: value for key, value in vars(constraint).items() if not callable(value)}


def _order(size: int) -> int:
    """K from the number K(K+1)/2 of entries of a triangle."""
    return (math.isqrt(8 * size + 1) - 1) // 2
