"""The inverse of a block neural autoregressive flow, one coordinate after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nfvi.flows.numerics.bnaf_blocks import Blocks
from nfvi.flows.numerics.in_range import in_range
from nfvi.flows.numerics.rootfind import solve_increasing

__all__ = ["walk"]


def walk(
    x: Tensor,
    order: Sequence[int],
    blocks: Blocks,
    weights: Sequence[Tensor],
    starts: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Solve for z with its gradients.

    Args:
        x: points (n, d).
        order: the coordinates, each after those that it depends on.
        blocks: the own paths.
        weights: those of the network without the own paths: from z to the first units (d a, d),
            from units to units (d a, d a'), and from the last units and z to x (d, d a + d).
        starts: what is added to their outputs, (outputs) or (n, outputs).

    Returns:
        z (n, d) and log|det dx/dz| (n).
    """
    dim, columns = x.shape[1], x.unbind(1)
    first, *middle, last = weights
    by_z, by_z_last = first.split(1, 1), last[:, -dim:].split(1, 1)
    by_units = [w.split(w.shape[1] // dim, 1) for w in (*middle, last[:, :-dim])]
    sums = [start.expand(x.shape[0], -1) for start in starts]
    log_sigma = in_range(blocks.sigma.log())
    scales, each = (-log_sigma).exp().unbind(0), blocks.each()
    found, log_slopes = list(columns), []
    for i in order:
        *crosses, shift = (s.unflatten(1, (dim, -1)).select(1, i) for s in sums)
        # Each coordinate feeds those after it: exact derivatives may grow exponentially with d.
        rest = in_range(in_range(columns[i] - shift.squeeze(1)) * scales[i])
        z = found[i] = _solve(each[i], crosses, rest)
        _, slope, units = _along(each[i], crosses, z)
        log_slopes.append(slope.log())
        sums[0] = sums[0] + z.unsqueeze(1) * by_z[i].mT
        sums[-1] = sums[-1] + z.unsqueeze(1) * by_z_last[i].mT
        for k, h in enumerate(units):
            sums[k + 1] = sums[k + 1] + h @ by_units[k][i].mT
    return torch.stack(found, 1), torch.stack(log_slopes, 1).sum(1) + log_sigma.sum()


def _along(
    own: Blocks, crosses: Sequence[Tensor], z: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """z + Σ q t and its slope, each (n), and the units of each layer (n, a)."""
    t = z.unsqueeze(1)
    slope, units = torch.ones_like(t), []
    for layer, cross in zip(own.layers, crosses, strict=True):
        h, t, slope = layer.units(t, slope, cross)
        units.append(h)
    return z + (t @ own.height).squeeze(1), 1 + (slope @ own.height).squeeze(1), units


def _solve(own: Blocks, crosses: Sequence[Tensor], rest: Tensor) -> Tensor:
    """z (n) with z + Σ q t = rest.

    A step of Newton's method from the solution, of size 0, brings in the first derivatives, and
    a second one the second.
    """
    half_eps = torch.finfo(rest.dtype).eps / 2

    def function(z: Tensor) -> tuple[Tensor, Tensor]:
        total, slope, _ = _along(own, crosses, z)
        value = total - rest
        # What rounding alone leaves of the equation; a step from there would be noise.
        noise = half_eps * (z.abs() + (total - z).abs() + rest.abs())
        return torch.where(value.abs() <= noise, 0.0, value), slope

    with torch.no_grad():
        z = solve_increasing(function, rest, 2 * own.reach().expand_as(rest))
        slope = function(z)[1]
    for _ in range(2):
        change = rest - _along(own, crosses, z)[0]
        z = z + (change - change.detach()) / slope
    return z
