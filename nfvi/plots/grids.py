"""Densities on a grid: windows from draws, regions of given mass, marginals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nfvi.plots.protocols import GuideLike, TargetLike
from nfvi.plots.style import Array, Window, array

__all__ = ["MASSES", "Grid", "grid", "grid_of_guide", "grid_of_target", "is_long", "window_of"]

MASSES = (0.99, 0.9, 0.75, 0.5, 0.25)
POINTS = 240
LONG_POINTS = (480, 160)
CHUNK = 16_384
TAIL = 0.01
MARGIN = 0.12


@dataclass(frozen=True)
class Grid:
    """A log-density on a grid.

    Attributes:
        x: places along the first coordinate (n).
        y: along the second (m).
        log_density: (m, n); normalised if the log-density was.
        normalised: whether it is.
    """

    x: Array
    y: Array
    log_density: Array
    normalised: bool

    @property
    def density(self) -> Array:
        """The density (m, n), with integral 1 over the grid if it is not normalised."""
        if self.normalised:
            values: Array = np.exp(self.log_density)
            return values
        values = np.exp(self.log_density - np.max(self.log_density))
        values /= values.sum() * self.cell
        return values

    @property
    def cell(self) -> float:
        """The area of a cell."""
        return float((self.x[1] - self.x[0]) * (self.y[1] - self.y[0]))

    def levels(self, masses: tuple[float, ...] = MASSES) -> Array:
        """Densities over which there are regions of these masses, in rising order.

        Masses that the grid does not hold, since the window cuts them, are left out.
        """
        values = np.sort(self.density.ravel())[::-1]
        held = np.cumsum(values) * self.cell
        inside = np.array(self.held(masses))
        levels: Array = np.unique(values[np.searchsorted(held, inside).clip(max=len(values) - 1)])
        return levels

    def held(self, masses: tuple[float, ...] = MASSES) -> tuple[float, ...]:
        """Those of the masses that the grid holds: not the ones that the window cuts."""
        most = float(self.density.sum()) * self.cell
        return tuple(m for m in masses if m <= most + 1e-9)

    def marginal(self, axis: int) -> tuple[Array, Array]:
        """Places along coordinate 0 or 1 and the density there, of the mass in the window."""
        if axis == 0:
            return self.x, self.density.sum(0) * (self.y[1] - self.y[0])
        return self.y, self.density.sum(1) * (self.x[1] - self.x[0])


def window_of(draws: Tensor) -> Window:
    """The central 98 % of draws (n, 2) along each coordinate, and 12 % more on each side.

    >>> (left, right), _ = window_of(torch.linspace(0, 1, 101).unsqueeze(1).expand(-1, 2))
    >>> round(left, 3), round(right, 3)
    (-0.108, 1.108)
    """
    values = array(draws)
    values = values[np.isfinite(values).all(1)]
    if len(values) == 0:
        raise ValueError("no draw is finite, so there is nothing to choose a window by")
    low, high = np.quantile(values, [TAIL, 1 - TAIL], axis=0)
    margin = np.maximum(MARGIN * (high - low), 1e-3 * np.maximum(np.abs(high), 1e-3))
    (x0, y0), (x1, y1) = low - margin, high + margin
    return (float(x0), float(x1)), (float(y0), float(y1))


def is_long(window: Window) -> bool:
    """Whether one side of the window is more than 2.5 times the other."""
    (x0, x1), (y0, y1) = window
    return not 0.4 <= (x1 - x0) / (y1 - y0) <= 2.5


def grid(
    log_prob: Callable[[Tensor], Tensor],
    window: Window,
    *,
    log_normalizer: float | None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Grid:
    """A log-density of two coordinates, (n, 2) -> (n), on a grid.

    That is 240 by 240 points, and for a long window 480 along it and 160 across.
    """
    (x0, x1), (y0, y1) = window
    if not (np.isfinite([x0, x1, y0, y1]).all() and x0 < x1 and y0 < y1):
        raise ValueError(f"window must be ((left, right), (bottom, top)), got {window!r}")
    n, m = LONG_POINTS if is_long(window) else (POINTS, POINTS)
    if x1 - x0 < y1 - y0:
        n, m = m, n
    x, y = np.linspace(x0, x1, n), np.linspace(y0, y1, m)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    z = torch.as_tensor(points, dtype=dtype or torch.get_default_dtype(), device=device or "cpu")
    with torch.no_grad():
        values = np.concatenate([array(log_prob(piece)) for piece in z.split(CHUNK)])
    values = np.where(np.isfinite(values), values, -np.inf).reshape(m, n)
    if not np.isfinite(values).any():
        raise ValueError(f"the density is 0 everywhere in the window {window!r}")
    return Grid(x, y, values - (log_normalizer or 0.0), log_normalizer is not None)


def grid_of_target(target: TargetLike, window: Window, like: Tensor | None = None) -> Grid:
    """The density of a target on a grid, in the dtype and on the device of ``like``."""
    return grid(
        target.log_prob,
        window,
        log_normalizer=target.log_normalizer,
        dtype=getattr(target, "dtype", None) if like is None else like.dtype,
        device=None if like is None else like.device,
    )


def grid_of_guide(guide: GuideLike, window: Window) -> Grid:
    """The density of a guide on a grid; it is normalised."""
    return grid(guide.log_prob, window, log_normalizer=0.0, dtype=guide.dtype, device=guide.device)
