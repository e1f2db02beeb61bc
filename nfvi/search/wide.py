"""Draws far wider than a guide: multivariate t distributions around it and around the prior."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from nfvi.guides import AnyGuide, sample_in_pieces
from nfvi.targets import Target
from nfvi.utils import at_once, held

__all__ = ["DF", "REACH", "Prior", "moments", "prior_scale", "wide_draws"]

Prior: TypeAlias = tuple[Tensor, Tensor]
"""Median (d) and scale (d)."""
DF = 5
"""Degrees of freedom: tails that reach far, with an sd that exists."""
REACH = (1.0, 3.0, 10.0)
"""Widths in sds. Without 10, modes at 60 sds of a unit normal stay unseen; 30 finds no more."""
DRAWS = 4_000
CUT = 0.005
SORTED = 6
"""Numbers in float32 for one that is sorted: two in float64 and a place."""
PRIOR_DRAWS = 64
"""A run of the model for each: 64 take 0.05 s, and tell an sd to a tenth."""
QUARTILES = (0.25, 0.5, 0.75)
NORMAL_QUARTILES = 1.3489795
"""Between the outer quartiles of a normal distribution of sd 1."""
FULL_RANK_LIMIT = 300


@torch.no_grad()
def moments(guide: AnyGuide, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean μ (d) and L (d, d), or its diagonal (d), of a guide; float64.

    Draws are cut at the 0.5 and 99.5 % quantiles of each coordinate, since those of a spline may
    lie anywhere; above 300 dimensions there are no correlations.

    Args:
        guide: q.
        generator: of the draws.
    """
    draws = sample_in_pieces(guide, held(DRAWS, guide.dim), generator)
    draws = draws[draws.isfinite().all(1)]
    columns = at_once(SORTED * max(len(draws), 1), guide.dim, guide.device)
    found = []
    for part in draws.split(columns, 1):
        x = part.double()
        low, high = x.quantile(CUT, 0), x.quantile(1 - CUT, 0)
        x = torch.minimum(torch.maximum(x, low), high)
        found.append((x.mean(0), x.std(0)))
    mean, sd = (torch.cat(row) for row in zip(*found, strict=True))
    sd = sd.clamp_min(1e-12 * (1 + mean.abs()))
    if guide.dim == 1 or guide.dim > FULL_RANK_LIMIT:
        return mean, sd
    # So few columns were one part. Scaled to a unit diagonal, so that units do not matter.
    ridge = 1e-6 * torch.eye(len(sd)).to(x)
    lower, info = torch.linalg.cholesky_ex(((x - mean) / sd).T.cov() + ridge)
    return mean, sd if int(info) else sd.unsqueeze(1) * lower


def prior_scale(target: Target, generator: torch.Generator) -> Prior | None:
    """Median and scale (d) of the prior of a target; ``None`` where it has none."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    draws = target.prior_draws(PRIOR_DRAWS, seed)
    if draws is None or len(draws) < PRIOR_DRAWS // 2:
        return None
    # Quartiles, as half-Cauchy and the like have no moments.
    # A model that holds no tensor of its own draws on the CPU, wherever the guide is.
    draws = draws.double().to(generator.device)
    low, middle, high = draws.quantile(draws.new_tensor(QUARTILES), dim=0)
    return middle, ((high - low) / NORMAL_QUARTILES).clamp_min(1e-12)


def wide_draws(
    loc: Tensor,
    tril: Tensor,
    prior: Prior | None,
    n: int,
    generator: torch.Generator,
) -> Tensor:
    """n draws (n, d) from t distributions of 5 degrees of freedom, as many from each.

    They are N(μ, L Lᵀ) and N(m, s²), each 1, 3 and 10 times as wide, divided by √(χ²₅ / 5).

    Args:
        loc: μ (d) of the guide.
        tril: L (d, d), or its diagonal (d).
        prior: m (d) and s (d) of the prior; ``None`` for 0 and 1.
        n: how many.
        generator: of the draws.
    """
    normal = partial(torch.randn, generator=generator, device=generator.device)
    noise = normal((n, len(loc))).to(loc)
    # χ² as a sum of squares: torch draws no gamma variables from a generator.
    chi2 = normal((n, DF)).square().sum(1, keepdim=True).to(loc)
    turn = torch.arange(n, device=loc.device)
    reach = torch.tensor(REACH, dtype=loc.dtype, device=loc.device)[turn // 2 % len(REACH)]
    noise = noise * reach.unsqueeze(1) * (DF / chi2).sqrt()
    near = loc + (noise * tril if tril.dim() == 1 else noise @ tril.T)
    far = noise if prior is None else prior[0] + prior[1] * noise
    return torch.where((turn % 2 == 0).unsqueeze(1), near, far)
