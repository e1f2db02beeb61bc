"""A log-density of more rows of data than a step of a fit can take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from itertools import islice
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.batching import find_batching
from nfvi.targets.checks import Evaluate, check_values, checked_call, name_of
from nfvi.targets.minibatch import MinibatchTarget, random_rows
from nfvi.targets.named_density import NamedDensity
from nfvi.targets.row_data import read_rows
from nfvi.targets.row_likelihood import (
    RowLikelihood,
    find_row_likelihood,
    like_points,
    odd_rows,
    summed,
)
from nfvi.targets.sites import constrain_sites

__all__ = ["RowsTarget"]

BATCH_SIZE = 1_024
# Other than the number of trial points, so that rows cannot pass for points.
TRIAL_ROWS = 2
SHOWN = 5
PLACED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class RowsTarget(NamedDensity, MinibatchTarget):
    """log p(z) = log_prior(z) + Σ log_likelihood(z, row) over N rows of data.

    A step of a fit takes ``batch_size`` fresh rows, and scales their log-likelihood by N /
    ``batch_size``: it costs the same whatever N is. ``log_prob`` is that of all rows, in pieces, so
    that memory holds; starts, k-hat and the evidence are taken with it.

    Args:
        log_prior: of z (n, d) -> (n,), or of one point (d,) -> (); or a :class:`~nfvi.Target`,
            whose dimension is that of z. With ``parameters=``, of their values, beside priors that
            are named there; ``None`` where these are all.
        log_likelihood: ``log_likelihood(z, *rows)``, one value a row: of one point and B rows
            (B,), or of points (n, d) and B rows (n, B). With ``parameters=``, it takes each by its
            name, ``log_likelihood(beta, sigma, X, y)``, or all as a dict,
            ``log_likelihood(values, X, y)``. Rows come as tensors, real numbers in the dtype of z.
        data: an array, tensor, table or memory map, or a tuple of them such as ``(X, y)`` with a
            row i each; or a ``Dataset`` with rows by number, or a ``DataLoader`` of one, whose own
            order is not used. What is on disk stays there, and rows are read as they are asked for.
        batch_size: B; default that of a DataLoader, else 1 024, or N if that is less.
        dim: d, where there are no ``parameters=``.
        parameters: name -> shape, support or prior, as for :class:`~nfvi.NamedDensity`.
        name: for tables and figures; default that of ``log_likelihood``.

    Attributes:
        rows: N.
        batch_size: B.

    Raises:
        TargetError: an argument cannot be used; or, at the first call, the functions do not return
            what they should, or the log-likelihood of a row is no number.

    Example:
        >>> import torch
        >>> X = torch.randn(10_000, 3, dtype=torch.float64)
        >>> y = X @ torch.ones(3, dtype=torch.float64) + 0.5 * torch.randn(10_000)
        >>> def log_prior(w):
        ...     return -0.5 * (w**2).sum(-1)
        >>> def log_likelihood(w, X, y):
        ...     return -2.0 * (y - X @ w) ** 2
        >>> RowsTarget(log_prior, log_likelihood, (X, y), dim=3).rows
        10000
    """

    def __init__(
        self,
        log_prior: Callable[..., Any] | None,
        log_likelihood: Callable[..., Any],
        data: Any,
        *,
        batch_size: int | None = None,
        dim: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(log_likelihood):
            raise TargetError(
                "log_likelihood= is a function of z and rows of data; got"
                f" {type(log_likelihood).__name__}"
            )
        self.named = parameters is not None
        given = {"z": _dim(log_prior, dim)} if parameters is None else parameters
        prior = _prior_of_values(log_prior, self.named)
        super().__init__(prior or _no_prior, given, name=name or name_of(log_likelihood))
        if not self.named:
            self.without_prior = ()  # it is in the function
        self._data, of_loader = read_rows(data)
        self.rows = len(self._data)
        self.batch_size = _batch_size(batch_size, of_loader, self.rows)
        self._has_prior = prior is not None
        # A sum over so many rows has few digits left in float32, of which a posterior takes the
        # last ones; NFVI(dtype=torch.float32) takes half the time.
        self.dtype = torch.float64
        self._likelihood = _of_vector(log_likelihood, self.sites, self.named, self.name)
        self._log_prior: Evaluate | None = None
        self._of_rows: RowLikelihood | None = None

    def __repr__(self) -> str:
        return (
            f"RowsTarget({self.name!r}, dim={self.dim}, rows={self.rows},"
            f" batch_size={self.batch_size})"
        )

    def draw_rows(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """B rows at random, none twice: the parts of the data."""
        return self._data.take(random_rows(self.rows, self.batch_size, generator))

    def log_prob_of(self, z: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """The estimate of log p(z) from some rows (n), at points z (n, d); after :meth:`check`."""
        values = self._checked.evaluate(z, like_points(rows, z))
        return self._prior_at(z) + self.rows / values.shape[1] * values.sum(1)

    def numbers_per_draw(self) -> float:
        """How many numbers the operations of a step write for one draw; after :meth:`check`."""
        return self.batch_size * self._checked.numbers

    def steps_of_a_look(self, n_mc: int) -> float:
        """N / (n_mc B): a look has as few calls as its memory allows."""
        return self.rows / (n_mc * self.batch_size)

    @property
    def _checked(self) -> RowLikelihood:
        if self._of_rows is None:
            self.check()
        return self._of_rows  # type: ignore[return-value]

    def _number_of_probes(self) -> int:
        taken = {size for site in self.sites.values() for size in site.shape} | {TRIAL_ROWS, 1}
        return next(n for n in range(3, 1000) if n not in taken and n != self.dim)

    def _choose(self, points: Tensor) -> tuple[Evaluate, str, str]:
        if self._has_prior:
            self._log_prior, _, _ = find_batching(
                self._of_points(), points, "log_prior", None, self._given(len(points))
            )
        few = like_points(self._data.span(0, min(TRIAL_ROWS, self.rows)), points)
        found = find_row_likelihood(self._likelihood, points, few, self.name)
        self._of_rows = found

        def evaluate(z: Tensor) -> Tensor:
            return (self._prior_at(z) + summed(found, self._data, z)).to(z.dtype)

        try:
            flat = check_values(evaluate, points, self.name).flat
        except TargetError as error:
            odd = list(islice(odd_rows(found, self._data, points[:1]), SHOWN))
            raise TargetError(f"{error}{_odd_text(odd)}") from error.__cause__
        if flat:
            self._refuse_flat(flat)
        return evaluate, found.batching, found.reason

    def _prior_at(self, z: Tensor) -> Tensor:
        """All of log p(z) that is not of the rows (n)."""
        total = self._log_prior_and_jacobian(z)
        if self._log_prior is None:
            return total
        return total + checked_call(self._log_prior, z, "log_prior")


def _dim(log_prior: Any, dim: Any) -> int:
    """The dimension of z, where there are no parameters."""
    known = getattr(log_prior, "dim", None)
    if dim is None:
        dim = known
    if dim is None:
        raise TargetError(
            "RowsTarget needs the number of coordinates, dim=, or the names of parameters,"
            " parameters={'beta': 3}"
        )
    if isinstance(dim, bool) or not isinstance(dim, Integral) or dim < 1:
        raise TargetError(f"dim= must be an integer of at least 1; got {dim!r}")
    if known not in (None, dim):
        raise TargetError(f"dim={dim} was given, and log_prior has dim={known}")
    if log_prior is None:
        raise TargetError(
            "log_prior= is None, and there are no priors: give a function of z, or parameters="
            " with a prior of each"
        )
    return int(dim)


def _no_prior(values: Mapping[str, Tensor]) -> Tensor:
    raise NotImplementedError


def _prior_of_values(log_prior: Any, named: bool) -> Callable[..., Any] | None:
    """The prior as :class:`NamedDensity` calls it: of one dict, or of values by their names."""
    if log_prior is not None and not callable(getattr(log_prior, "log_prob", log_prior)):
        raise TargetError(
            f"log_prior= is a function, a Target or None; got {type(log_prior).__name__}"
        )
    if log_prior is None or named:
        return log_prior  # type: ignore[no-any-return]
    of_z = getattr(log_prior, "log_prob", log_prior)

    def of_values(values: Mapping[str, Tensor]) -> Any:
        return of_z(values["z"])

    return of_values


def _of_vector(
    fn: Callable[..., Any], sites: Mapping[str, Any], named: bool, name: str
) -> Callable[[Tensor, tuple[Tensor, ...]], Any]:
    """The user's log-likelihood as a function of points z (n, d), or one (d,), and rows."""
    order = _order(fn, list(sites)) if named else None

    def of_vector(z: Tensor, rows: tuple[Tensor, ...]) -> Any:
        if not named:
            return fn(z, *rows)
        values, _ = constrain_sites(sites, z if z.dim() == 2 else z.unsqueeze(0))
        if z.dim() == 1:
            values = {key: value[0] for key, value in values.items()}
        if order is None:
            return fn(values, *rows)
        if len(order) != len(rows):
            raise TargetError(
                f"{name!r} takes {', '.join(order) or 'nothing'} beside the parameters, and data="
                f" has {len(rows)} part{'s' * (len(rows) != 1)}; it must take each part"
            )
        return fn(**values, **dict(zip(order, rows, strict=True)))

    return of_vector


def _order(fn: Any, names: list[str]) -> list[str] | None:
    """The arguments that rows are for; ``None`` where all parameters come as one dict first."""
    try:
        arguments = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return None
    placed = [a.name for a in arguments if a.kind in PLACED]
    if not set(names) & set(placed):
        return None
    missing = [name for name in names if name not in placed]
    if missing:
        raise TargetError(
            f"{name_of(fn)!r} takes {', '.join(placed)}, and parameters= names {', '.join(names)}:"
            " use the same names, or write it for one dict of them, f(values, *rows)"
        )
    needed = [a for a in arguments if a.kind in PLACED and a.name not in names]
    return [a.name for a in needed if a.default is a.empty]


def _batch_size(given: Any, of_loader: int | None, rows: int) -> int:
    if given is None:
        return min(of_loader or BATCH_SIZE, rows)
    whole = isinstance(given, Integral) and not isinstance(given, bool)
    if not whole or not 1 <= given <= rows:
        raise TargetError(
            f"batch_size= must be an integer from 1 to the number of rows, {rows:,}; got {given!r}"
        )
    return int(given)


def _odd_text(odd: list[int]) -> str:
    if not odd:
        return ""
    more = ", ..." if len(odd) == SHOWN else ""
    return (
        f"; the log-likelihood of row {', '.join(map(str, odd))}{more} is NaN or inf there: look"
        " for missing values in these rows, and leave them out or model them"
    )
