"""From R^k to a site's support: torch's ``biject_to``, made exact in both tails.

Where torch reads a log off a value that may have been rounded to an edge of the support, the maps
here compute it from the unconstrained numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import CholeskyTransform, CorrMatrixCholeskyTransform
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    ExpTransform,
    StickBreakingTransform,
    _InverseTransform,
)
from torch.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix
from torch.nn.functional import logsigmoid, pad, softplus

__all__ = [
    "CorrCholesky",
    "Exp",
    "LowerCholesky",
    "StickBreaking",
    "bare",
    "beyond_floats",
    "bijection",
    "joined_transform",
    "log_sech",
    "log_simplex",
    "on_device",
    "same_constraint",
    "support_of",
]


class Exp(ExpTransform):
    """exp(x), kept among the positive floats: a likelihood has no use for 0 or infinity."""

    def _call(self, x: Tensor) -> Tensor:
        limits = torch.finfo(x.dtype)
        return x.exp().clamp(limits.tiny, limits.max)


class StickBreaking(StickBreakingTransform):
    """x in R^{K−1} to the simplex, as torch's, with both ends of each break in log-space.

    Torch computes 1 − sigmoid(x), so that a share after a large one is at least 1e-16 of the whole
    while one before it may be as small as floats go.
    """

    def _call(self, x: Tensor) -> Tensor:
        limits = torch.finfo(x.dtype)
        return log_simplex(x).exp().clamp(limits.tiny, 1 - limits.eps)

    def _inverse(self, y: Tensor) -> Tensor:
        rest = y.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        x: Tensor = y[..., :-1].log() - rest.log() - _even_breaks(rest)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx| of the first K−1 shares: the sum of the logs of all K."""
        return log_simplex(x).sum(-1)


class CorrCholesky(CorrCholeskyTransform):
    """x in R^{K(K−1)/2} to the Cholesky factor of a correlation matrix, as torch's.

    A row is tanh(x_1), tanh(x_2) sech(x_1), ...; its last entry, on the diagonal, is the product
    of all sech(x_j), which torch computes as √(1 − tanh²).
    """

    def _call(self, x: Tensor) -> Tensor:
        before = _sums_before(x)
        ones = torch.eye(before.shape[-1], dtype=x.dtype, device=x.device)
        left = before.exp().clamp(min=torch.finfo(x.dtype).tiny)
        return (vec_to_tril_matrix(x.tanh(), diag=-1) + ones) * left

    def _inverse(self, y: Tensor) -> Tensor:
        after = y.square().flip(-1).cumsum(-1).flip(-1).roll(-1, -1)
        after = tril_matrix_to_vec(after, diag=-1).clamp(min=torch.finfo(y.dtype).tiny)
        return (tril_matrix_to_vec(y, diag=-1) * after.rsqrt()).asinh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor, intermediates: Any = None) -> Tensor:
        """log|det| of the map to the entries under the diagonal."""
        before = tril_matrix_to_vec(_sums_before(x), diag=-1)
        return 2 * log_sech(x).sum(-1) + before.sum(-1)


def log_simplex(x: Tensor) -> Tensor:
    """The logs (\\*, K) of the shares that :class:`StickBreaking` makes of x (\\*, K−1)."""
    x = x + _even_breaks(x)
    left = pad(logsigmoid(-x).cumsum(-1), [1, 0])
    return left + pad(logsigmoid(x), [0, 1])


def log_sech(x: Tensor) -> Tensor:
    """log(1 / cosh(x)), exact in both tails."""
    return math.log(2.0) - x - softplus(-2 * x)


def _even_breaks(like: Tensor) -> Tensor:
    """What x = 0 is moved by (K−1), so that it breaks the stick into K equal shares."""
    size = like.shape[-1]
    return -torch.arange(size, 0, -1, dtype=like.dtype, device=like.device).log()


def _sums_before(x: Tensor) -> Tensor:
    """For each entry (i, j) of a matrix K x K, the sum of log sech over row i before column j."""
    logs = vec_to_tril_matrix(log_sech(x), diag=-1)
    return pad(logs.cumsum(-1)[..., :-1], [1, 0])


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
        return full.tril(-1) + torch.diag_embed(Exp()(full.diagonal(dim1=-2, dim2=-1)))

    def _inverse(self, y: Tensor) -> Tensor:
        k = y.shape[-1]
        rows, columns = torch.tril_indices(k, k, device=y.device)
        full = y.tril(-1) + torch.diag_embed(y.diagonal(dim1=-2, dim2=-1).log())
        return full[..., rows, columns]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx|, one number for each matrix."""
        k = y.shape[-1]
        diagonal = torch.arange(1, k + 1, device=x.device).cumsum(0) - 1
        return x[..., diagonal].sum(-1)

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
    exact = _EXACT.get(type(support))
    found: Transform = exact(support) if exact else biject_to(support)
    return found


def _above(bound: Any) -> Transform:
    if isinstance(bound, (int, float)) and bound == 0:
        return Exp()
    return ComposeTransform([Exp(), AffineTransform(bound, 1)])


_EXACT: dict[type[constraints.Constraint], Callable[[Any], Transform]] = {
    constraints.greater_than: lambda support: _above(support.lower_bound),
    constraints.greater_than_eq: lambda support: _above(support.lower_bound),
    type(constraints.simplex): lambda _: StickBreaking(),
    type(constraints.corr_cholesky): lambda _: CorrCholesky(),
    type(dist.constraints.corr_matrix): lambda _: ComposeTransform(
        [CorrCholesky(), CorrMatrixCholeskyTransform().inv]
    ),
}


def beyond_floats(transform: Transform, x: Tensor) -> Tensor | None:
    """Where exp(x) leaves the positive floats (\\*, same as x), for maps that begin with it.

    The value is kept at the last float there, while log|det| = x continues to rise: a density that
    is not computed from x would rise without end. ``None`` for other maps.
    """
    first = transform.parts[0] if isinstance(transform, ComposeTransform) else transform
    if not isinstance(first, Exp):
        return None
    limits = torch.finfo(x.dtype)
    return (x < math.log(limits.tiny)) | (x > math.log(limits.max))


def on_device(transform: Transform, device: torch.device) -> Transform:
    """The same map with its tensors, such as bounds, on a device; itself if they are there."""

    def moved(held: Sequence[Tensor]) -> Tensor:
        return held[0] if held[0].device == device else held[0].to(device)

    return joined_transform([transform], moved)


def joined_transform(
    transforms: Sequence[Transform], join: Callable[[Sequence[Tensor]], Tensor]
) -> Transform:
    """One map of several of one kind, with its tensors, such as bounds, made of theirs.

    Args:
        transforms: the maps.
        join: makes one tensor of those in the same place of each; the map is the first one where
            these are all its own.
    """
    joined: Transform = _joined(transforms, join)
    return joined


def _joined(held: Sequence[Any], join: Callable[[Sequence[Tensor]], Tensor]) -> Any:
    """What transforms hold, copied where a tensor in it is another than that of the first."""
    first = held[0]
    if isinstance(first, Tensor):
        return join(held)
    if isinstance(first, list | tuple):
        parts = [_joined(part, join) for part in zip(*held, strict=True)]
        same = all(new is old for new, old in zip(parts, first, strict=True))
        return first if same else type(first)(parts)
    if isinstance(first, _InverseTransform):
        straight = _joined([each.inv for each in held], join)
        return first if straight is first.inv else straight.inv
    if not isinstance(first, Transform | constraints.Constraint):
        return first
    # The inverse of a transform refers back to it, and is made anew.
    mine = {key: value for key, value in vars(first).items() if key != "_inv"}
    found = {key: _joined([vars(each)[key] for each in held], join) for key in mine}
    if all(found[key] is mine[key] for key in mine):
        return first
    other = copy.copy(first)
    vars(other).update({"_inv": None, **found} if isinstance(first, Transform) else found)
    return other


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
