"""Log-densities of bounded and positive sites as functions of their unconstrained numbers.

``fn.log_prob(x)`` reads log x or log(1 − x) off a float. A Beta(0.05, 0.05) has half of its mass
above the last float below 1, a Gamma(0.01) half of it below the first one above 0. Here the logs
come from z, where x = exp(z), sigmoid(z) or the like, and are exact in both tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, Transform, TransformedDistribution, transforms
from torch.nn.functional import logsigmoid, softplus

from nfvi.targets.bijections import bijection, log_sech, log_simplex

__all__ = ["Density", "log_space_density"]

Density = Callable[[Tensor], Tensor]

# Maps without parameters: two of one type are equal.
_BARE_MAPS = (
    transforms.ExpTransform,
    transforms.SigmoidTransform,
    transforms.StickBreakingTransform,
    dist.transforms.OrderedTransform,
)


def log_space_density(fn: Any) -> Density | None:
    """log p(x) of a distribution as a function of z, where x is the image of z in its support.

    The Jacobian of the map from z to x is not in it.

    Args:
        fn: a distribution, with or without ``to_event`` and ``expand`` around it.

    Returns:
        A function of z (\\*, \\*batch, \\*unconstrained event) to (\\*, \\*batch); ``None`` for a
        distribution whose own ``log_prob`` has to do.
    """
    if isinstance(fn, Independent):
        return _independent(fn)
    if isinstance(fn, dist.ExpandedDistribution):
        return log_space_density(fn.base_dist)
    for known, density in _DENSITIES.items():
        # A subclass with a density of its own is another distribution.
        if isinstance(fn, known) and type(fn).log_prob is known.log_prob:
            return lambda z: density(fn, z)
    if type(fn).log_prob is TransformedDistribution.log_prob:
        return _transformed(fn)
    return None


def _independent(fn: Any) -> Density | None:
    inner = log_space_density(fn.base_dist)
    if inner is None:
        return None
    axes = fn.reinterpreted_batch_ndims
    return lambda z: _sum_last(inner(z), axes)


def _transformed(fn: TransformedDistribution) -> Density | None:
    """Where the last transform is the map from z to x itself, it need not be undone."""
    *before, last = fn.transforms
    site = bijection(fn.support)
    if site is None or not any(isinstance(last, m) and isinstance(site, m) for m in _BARE_MAPS):
        return None
    base = TransformedDistribution(fn.base_dist, before) if before else fn.base_dist
    axes = len(fn.event_shape) - last.codomain.event_dim

    def density(z: Tensor) -> Tensor:
        return base.log_prob(z) - _sum_last(_log_det(site, z), axes)

    return density


def _log_det(site: Transform, z: Tensor) -> Tensor:
    ladj: Tensor = site.log_abs_det_jacobian(z, site(z))
    return ladj


def _sum_last(x: Tensor, axes: int) -> Tensor:
    return x.sum(list(range(-axes, 0))) if axes else x


def _gamma(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.concentration
    log_rate: Tensor = fn.rate.log()
    return a * log_rate + (a - 1) * z - (z + log_rate).exp() - torch.lgamma(a)


def _inverse_gamma(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.concentration
    log_rate: Tensor = fn.rate.log()
    return a * log_rate - (a + 1) * z - (log_rate - z).exp() - torch.lgamma(a)


def _weibull(fn: Any, z: Tensor) -> Tensor:
    k: Tensor = fn.concentration
    power = k * (z - fn.scale.log())
    density: Tensor = k.log() + power - z - power.exp()
    return density


def _fisher_snedecor(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.df1 / 2
    b: Tensor = fn.df2 / 2
    log_ratio = a.log() - b.log()
    powers = a * log_ratio + (a - 1) * z - (a + b) * softplus(z + log_ratio)
    return powers - _log_beta(a, b)


def _pareto(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.alpha
    log_scale: Tensor = fn.scale.log()
    return a.log() + a * log_scale - (a + 1) * torch.logaddexp(log_scale, z)


def _beta(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.concentration1
    b: Tensor = fn.concentration0
    return (a - 1) * logsigmoid(z) + (b - 1) * logsigmoid(-z) - _log_beta(a, b)


def _affine_beta(fn: Any, z: Tensor) -> Tensor:
    scale: Tensor = fn.scale
    return _beta(fn, z) - scale.log()


def _kumaraswamy(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.concentration1
    b: Tensor = fn.concentration0
    constant = a.log() + b.log()
    return constant + (a - 1) * logsigmoid(z) + (b - 1) * _log_one_minus_power(a, z)


def _log_one_minus_power(a: Tensor, z: Tensor) -> Tensor:
    """log(1 − sigmoid(z)^a)."""
    u = a * softplus(-z)  # −log of the power
    tiny = u < 1e-3
    away = torch.where(tiny, 1.0, u)
    near = torch.where(tiny, u, 0.0)
    series = a.log() + _log_softplus(-z) - near / 2 + near.square() / 24
    return torch.where(tiny, series, (-torch.expm1(-away)).log())


def _log_softplus(x: Tensor) -> Tensor:
    """log log(1 + eˣ); for x far below 0 that is x, where the inner log underflows."""
    low = x < -15
    small = torch.where(low, x, -15.0)
    large = torch.where(low, 0.0, x)
    return torch.where(low, small - small.exp() / 2, softplus(large).log())


def _relaxed_bernoulli(fn: Any, z: Tensor) -> Tensor:
    t: Tensor = fn.temperature
    d = fn.logits - t * z
    density: Tensor = t.log() + d - 2 * softplus(d) - logsigmoid(z) - logsigmoid(-z)
    return density


def _uniform(fn: Any, z: Tensor) -> Tensor:
    width: Tensor = fn.high - fn.low
    return torch.zeros_like(z) - width.log()


def _dirichlet(fn: Any, z: Tensor) -> Tensor:
    a: Tensor = fn.concentration
    constant = torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1)
    return ((a - 1) * log_simplex(z)).sum(-1) + constant


def _relaxed_categorical(fn: Any, z: Tensor) -> Tensor:
    logs = log_simplex(z)
    relaxed: Tensor = fn.base_dist.log_prob(logs) - logs.sum(-1)
    return relaxed


def _lkj_cholesky(fn: Any, z: Tensor) -> Tensor:
    k = torch.arange(2, fn.dim + 1, dtype=z.dtype, device=z.device)
    order: Tensor = 2 * (fn.concentration.unsqueeze(-1) - 1) + fn.dim - k
    return (order * _log_diagonal(z)).sum(-1) - _log_lkj_constant(fn)


def _lkj(fn: Any, z: Tensor) -> Tensor:
    order: Tensor = 2 * (fn.concentration.unsqueeze(-1) - 1)
    return (order * _log_diagonal(z)).sum(-1) - _log_lkj_constant(fn)


def _log_diagonal(z: Tensor) -> Tensor:
    """The logs of the Cholesky factor's diagonal, from its second entry on."""
    order = (math.isqrt(8 * z.shape[-1] + 1) + 1) // 2
    rows = log_sech(z).split(list(range(1, order)), -1)
    return torch.stack([row.sum(-1) for row in rows], -1)


def _log_lkj_constant(fn: Any) -> Tensor:
    """log ∫ Π_k L_kk^(2(η−1)+K−k) dL: partial correlations in column j are Beta(η + (K−1−j)/2)."""
    eta: Tensor = fn.concentration.unsqueeze(-1)
    j = torch.arange(1, fn.dim, dtype=eta.dtype, device=eta.device)
    b = eta + (fn.dim - 1 - j) / 2
    constants: Tensor = (fn.dim - j) * _log_beta(torch.full_like(b, 0.5), b)
    return constants.sum(-1)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


_DENSITIES: dict[Any, Callable[[Any, Tensor], Tensor]] = {
    torch.distributions.Gamma: _gamma,
    dist.InverseGamma: _inverse_gamma,
    torch.distributions.Weibull: _weibull,
    torch.distributions.FisherSnedecor: _fisher_snedecor,
    torch.distributions.Pareto: _pareto,
    torch.distributions.Beta: _beta,
    dist.AffineBeta: _affine_beta,
    torch.distributions.Kumaraswamy: _kumaraswamy,
    torch.distributions.RelaxedBernoulli: _relaxed_bernoulli,
    torch.distributions.Uniform: _uniform,
    torch.distributions.Dirichlet: _dirichlet,
    torch.distributions.RelaxedOneHotCategorical: _relaxed_categorical,
    torch.distributions.LKJCholesky: _lkj_cholesky,
    dist.LKJ: _lkj,
}
