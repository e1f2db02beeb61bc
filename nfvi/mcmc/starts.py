"""Where chains start, and a seed for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets import Target
from nfvi.utils import check_unmasked, usable_device

__all__ = ["chain_seeds", "starts"]

# Stan's defaults both: wide enough for R-hat to see chains that stay apart, and near the bulk where
# scales are about 1. A support that is missed a hundred times wants `init=`.
RADIUS = 2.0
TRIES = 100


def chain_seeds(seed: int, n: int) -> list[int]:
    """n seeds out of one; the first ones do not depend on how many follow."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randint(2**62, (n,), generator=generator, device="cpu").tolist()


def starts(
    target: Target,
    init: Any,
    seeds: list[int],
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """A starting point for every chain: (chains, d), on unconstrained space.

    Args:
        target: the log-density.
        init: ``None`` for points uniform on (−2, 2)^d, retried until log p and its gradient are
            finite; (chains, d); (d,) for all chains; or a dict of a model's sites.
        seeds: one a chain.
        dtype: default that of ``init``, else ``torch.get_default_dtype()``.
        device: default that of ``init``, else ``torch.get_default_device()``.

    Raises:
        ValueError: ``device`` cannot be used, or ``init`` has the wrong shape, or a log-density
            or gradient that is not finite.
        TargetError: no usable point was found for ``init=None``.
    """
    if device is not None:
        device = usable_device("device", device)
    if init is None:
        dtype = dtype or torch.get_default_dtype()
        device = torch.get_default_device() if device is None else torch.device(device)
        return torch.stack([_search(target, seed, dtype, device) for seed in seeds])
    chains = len(seeds)
    z = _from_sites(target, init) if isinstance(init, Mapping) else _tensor(init)
    z = z.detach().to(dtype=dtype, device=device)
    if z.shape != (target.dim,) and z.shape != (chains, target.dim):
        raise ValueError(
            f"init has shape {tuple(z.shape)}; {target.name!r} with {chains} chains takes "
            f"({chains}, {target.dim}), a point for each chain, or ({target.dim},), one for all"
        )
    z = z.expand(chains, target.dim)
    for i, point in enumerate(z):
        if not _usable(target, point):
            raise ValueError(
                f"init of chain {i}, {point.tolist()}, has a log-density or gradient that is not "
                "finite; start where the density is positive"
            )
    return z


def _search(target: Target, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for _ in range(TRIES):
        u = torch.rand(target.dim, generator=generator, dtype=torch.float64, device="cpu")
        z = (RADIUS * (2 * u - 1)).to(dtype=dtype, device=device)
        if _usable(target, z):
            return z
    raise TargetError(
        f"no point with a finite log-density and gradient of {target.name!r} in {TRIES} tries, "
        f"uniform on (-2, 2)^{target.dim}; give starting points by init="
    )


def _usable(target: Target, z: Tensor) -> bool:
    """Whether log p and its gradient are finite at one point z (d,)."""
    leaf = z.clone().requires_grad_()
    value = target.log_prob(leaf.unsqueeze(0)).squeeze(0)
    if not value.isfinite():
        return False
    (gradient,) = torch.autograd.grad(value, leaf)
    return bool(gradient.isfinite().all())


def _tensor(init: Any) -> Tensor:
    """Numbers in any form as a tensor: floats keep their type, others take the default one."""
    check_unmasked("init", init)
    try:
        z = torch.as_tensor(init)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"init must be numbers of shape (chains, d) or (d,), or a dict of sites: {error}"
        ) from error
    keeps = isinstance(init, Tensor | np.ndarray) and z.is_floating_point()
    return z if keeps else z.to(torch.get_default_dtype())


def _from_sites(target: Target, sites: Mapping[str, Any]) -> Tensor:
    """A dict of constrained sites as points on unconstrained space."""
    unconstrain: Callable[..., Tensor] | None = getattr(target, "unconstrain", None)
    if unconstrain is None:
        raise ValueError(
            f"init as a dict of sites needs a model; {target.name!r} takes (chains, d) or (d,)"
        )
    return unconstrain({name: _tensor(value) for name, value in sites.items()})
