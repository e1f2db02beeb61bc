"""A density in the units of data: a guide of standardised rows, scored and sampled from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.density.points import Points, read_context, read_points
from nfvi.density.standardization import Standardization
from nfvi.density.table import Table, columns_of
from nfvi.fit import FittedGuide, draws_frame, summarize
from nfvi.guides import Guide, draws_at_once, guide_from_header
from nfvi.utils import check_whole

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Density", "guide_of"]

# Rows at once: large enough to cost no more than their arithmetic. They are fewer where they would
# not fit into memory.
CHUNK = 16_384


class Density(FittedGuide):
    """A density q(x), or q(x | context), in the units of the data that it was fitted to.

    Args:
        guide: q of standardised rows.
        standardization: the scale of each column.
        settings: how it was made; ``seed``, ``columns`` and ``draws`` (their dtype) are read.
    """

    guide: Guide

    def __init__(
        self, guide: Guide, standardization: Standardization, settings: dict[str, Any]
    ) -> None:
        super().__init__(guide, settings)
        self.standardization = standardization.to(guide.device)

    @property
    def context_dim(self) -> int:
        """c, the number of columns of the context; 0 without one."""
        return self.guide.context_dim

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of the columns, where the data were a table."""
        names = self.settings["columns"]
        return None if names is None else tuple(names)

    @property
    def _table(self) -> Table | None:
        """What the data were like, where they were a table."""
        return Table.of_settings(self.settings)

    def rows(self, x: Any) -> Tensor:
        """Rows (n, d) as float64, after a check that they can be rows of the data.

        Args:
            x: (n, d), or (n) for d = 1: an array, tensor or table, whose columns may come in any
                order.

        Raises:
            TypeError: x does not hold real numbers.
            ValueError: the width or the columns of x are not those of the data, or there are NaN or
                inf.
        """
        return read_points(x, self.dim, self.columns).x

    def log_prob(self, x: Any, context: Any = None) -> Tensor:
        """log q(x | context) (\\*) of points x (\\*, d), with gradients with respect to both.

        Args:
            x: a tensor (\\*, d), or of any shape without 1 at its end for d = 1; or a table of n
                rows, such as :meth:`sample` returns, with the columns of the data in any order.
            context: (\\*, c), or one context (c) for all points; where the fit has one.

        Returns:
            A tensor of the floating-point type of x; (n) for a table.

        Raises:
            TypeError: x is neither.
            ValueError: the width of points or context is not that of the data, or the columns of a
                table are others.
        """
        if columns_of(x) is not None:
            table = read_points(x, self.dim, self.columns)
            x = table.x.to(table.kind)
        if not isinstance(x, Tensor):
            raise TypeError(
                f"log_prob takes a tensor or a table, got {type(x).__name__}; score_samples takes"
                " arrays"
            )
        points = x.unsqueeze(-1) if self.dim == 1 and x.shape[-1:] != (1,) else x
        if points.shape[-1:] != (self.dim,):
            raise ValueError(f"x has shape {tuple(x.shape)}, and this fit needs (*, {self.dim})")
        value = self._log_prob(points, read_context(context, self.context_dim, points.shape[:-1]))
        return value.to(x if x.is_floating_point() else self.guide.dtype)

    def score_samples(self, x: Any, context: Any = None) -> Any:
        """log q(x | context) of each row (n), nats in the units of the data.

        Args:
            x: rows (n, d), or (n) for d = 1: an array or tensor, or a table with the columns of the
                data in any order.
            context: (n, c), or one context (c) for all rows; where the fit has one.

        Returns:
            A tensor for a tensor, otherwise a NumPy array.

        Raises:
            TypeError: x does not hold real numbers.
            ValueError: the width of x or context is not that of the data, the columns of a table
                are others, or there are NaN or inf.
        """
        points = read_points(x, self.dim, self.columns)
        given = read_context(context, self.context_dim, points.x.shape[:1])
        return points.like(self._score(points, given))

    def score(self, x: Any, context: Any = None) -> float:
        """The mean of :meth:`score_samples`: log-likelihood a row, nats."""
        points = read_points(x, self.dim, self.columns)
        given = read_context(context, self.context_dim, points.x.shape[:1])
        return float(self._score(points, given).mean())

    def sample(self, n: int, context: Any = None, *, seed: int | None = None) -> Any:
        """Draws in the units of the data: a table where the data were one, and else a tensor.

        Args:
            n: how many, for each context.
            context: one context (c), or several (m, c); where the fit has one.
            seed: for the same draws each time; ``None`` continues in the fit's own stream.

        Returns:
            For a table, a pandas DataFrame with its columns and their dtypes: whole numbers and
            truth values are rounded to, and of categories the nearest is taken, while
            :meth:`to_dataframe` leaves them as they were drawn. It has n rows; for several contexts
            n m, with the levels ``draw`` and ``context`` in its index. For all else, a tensor
            (n, d) in the floating-point type of the data; for several contexts (n, m, d).
        """
        draws, table = self._draws(n, context, seed), self._table
        return draws if table is None else table.frame(draws)

    def _draws(self, n: int, context: Any, seed: int | None) -> Tensor:
        """Draws (n, d), or (n, m, d), as the density gives them."""
        check_whole("n", n, 1)
        stream = self._stream(seed)
        given = read_context(context, self.context_dim, None)
        if given is not None:
            given = self.standardization.of_context(given, self.guide.dtype)
        z = self.guide.sample(n, context=given, generator=stream)
        return self.standardization.to_data(z).to(getattr(torch, self.settings["draws"]))

    def to_dataframe(
        self, n: int = 1_000, context: Any = None, *, seed: int | None = None
    ) -> pd.DataFrame:
        """n draws as a table like that of the data: names of columns, and their float types.

        Columns of whole numbers or truth values become floats, as the density is continuous. Data
        without names have columns ``x[0]``, ``x[1]``, ...

        Args:
            n: how many.
            context: one context (c), where the fit has one.
            seed: as for :meth:`sample`.

        Raises:
            ValueError: there are several contexts.
        """
        draws = self._draws(n, context, seed)
        if draws.dim() != 2:
            raise ValueError(f"context must be one, ({self.context_dim},), for one table of draws")
        table, kept = draws_frame(self._sites(draws)), self._table
        kinds = zip(table.columns, (kept and kept.dtypes) or (), strict=False)
        return table.astype({name: kind for name, kind in kinds if "float" in kind.lower()})

    def summary(self, n: int = 10_000, context: Any = None) -> pd.DataFrame:
        """Mean, sd, interval and Monte-Carlo errors of every column, from n draws.

        A row for each column, with ``mean``, ``sd``, the ends ``hdi_3%`` and ``hdi_97%`` of the
        narrowest interval with 94 % of the draws, ``mcse_mean`` and ``mcse_sd``. The draws are not
        rounded, as those of :meth:`sample` are where the data were a table of whole numbers.

        Args:
            n: draws.
            context: one context (c), where the fit has one.
        """
        return summarize(self._sites(self._draws(n, context, 0)))

    def _score(self, points: Points, context: Tensor | None) -> Tensor:
        whole = context is None or context.dim() == 1
        pieces, count = [], draws_at_once(self.guide, CHUNK)
        with torch.no_grad():
            for first in range(0, len(points.x), count):
                part = slice(first, first + count)
                given = context if whole else context[part]  # type: ignore[index]
                pieces.append(self._log_prob(points.x[part], given))
        return torch.cat(pieces) if pieces else points.x.new_zeros(0)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        """log q (\\*) in float64, on the device of x."""
        units, dtype = self.standardization, self.guide.dtype
        given = None if context is None else units.of_context(context, dtype)
        log_q = self.guide.log_prob(units.of_points(x, dtype), context=given)
        log_q, bend = log_q.double() - units.log_scale, units.log_bend(x)
        return (log_q if bend is None else log_q - bend).to(x.device)

    def _sites(self, draws: Tensor) -> dict[str, Tensor]:
        if self.columns is None:
            return {"x": draws}
        return dict(zip(self.columns, draws.unbind(-1), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        # As in a file: numbers, and the settings that a guide is made anew from.
        return {
            **vars(self),
            "guide": self.guide.state_dict(),
            "_generator": self._generator.get_state(),
            "device": str(self.guide.device),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = state.pop("device")
        self.__dict__.update(state)
        guide = guide_of(state["settings"], state["guide"], device)
        self.guide = guide.requires_grad_(False).eval()
        self._generator = torch.Generator(device)
        self._generator.set_state(state["_generator"])


def guide_of(
    settings: dict[str, Any], state: dict[str, Tensor], device: torch.device | str | None
) -> Guide:
    """The guide that the settings of a fit describe, with parameters from a state dict."""
    header = {name: settings[name] for name in ("formula", "base", "dim", "context_dim", "dtype")}
    guide = guide_from_header(header, state, device, "settings")
    if not isinstance(guide, Guide):
        raise ValueError("its guide is a mixture, which no fit to data has")
    return guide
