"""The record of a fit, one row a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["History", "mean_and_error"]

_FIELDS = {
    "elbo": ("loss", "elbo", "elbo_se", "grad_norm", "beta"),
    "log_likelihood": ("loss", "log_likelihood", "log_likelihood_se", "grad_norm"),
}
LEAST_ROOM = 256
"""Steps that a record has room for at least, before it is made larger."""


class History:
    """Loss, what was maximised, its standard error and gradient length at every step.

    Every column is (steps, R), but for ``lr`` and ``n_mc``, which are (steps). A fit to a target
    has ``elbo`` and ``elbo_se``, E[log p − log q] over the step's own draws (nats), and ``beta``;
    its ``loss`` is E[log q − β log p]. A fit to data has ``log_likelihood`` and
    ``log_likelihood_se``, the mean of log q over the step's own rows (nats a row), and its ``loss``
    is minus that. ``grad_norm`` is taken before clipping.

    Args:
        quantity: ``"elbo"`` or ``"log_likelihood"``.
    """

    def __init__(self, quantity: str = "elbo") -> None:
        self.quantity = quantity
        self.fields = _FIELDS[quantity]
        # One table with room for more: a small tensor kept from each step would lie between the
        # large ones that steps leave, and keep the C library from using their memory again.
        self._table = torch.empty(0, len(self.fields), 0)
        self._lr: list[float] = []
        self._n_mc: list[int] = []

    def __len__(self) -> int:
        return len(self._lr)

    @property
    def _rows(self) -> Tensor:
        """All that was recorded (steps, fields, R)."""
        return self._table[: len(self)]

    def append(self, lr: float, n_mc: int = 0, **values: Tensor) -> None:
        """Add a step; each value (R). Those that have no column here are left out."""
        row = torch.stack([values[name] for name in self.fields])
        self.extend([lr], n_mc, row.unsqueeze(0))

    def extend(self, lr: Sequence[float], n_mc: int, rows: Tensor) -> None:
        """Add steps whose values are stacked, in the order of the fields: (steps, fields, R)."""
        old, end = len(self), len(self) + len(rows)
        if end > len(self._table):
            table = rows.new_empty(max(end, 2 * old, LEAST_ROOM), *rows.shape[1:])
            if old:
                table[:old] = self._rows
            self._table = table
        self._table[old:end] = rows
        self._n_mc.extend([n_mc] * len(rows))
        self._lr.extend(lr)

    def last_row(self) -> Tensor:
        """All columns of the last step (fields, R)."""
        return self._rows[-1]

    def last(self, name: str, steps: int) -> Tensor:
        """The last so many rows (at most ``steps``, R) of one column."""
        return self._rows[-steps:, self._index(name)].clone()

    def _index(self, name: str) -> int:
        if name not in self.fields:
            raise AttributeError(
                f"this history has no column {name!r}; it has {', '.join(self.fields)}"
            )
        return self.fields.index(name)

    def _column(self, name: str) -> Tensor:
        self._index(name)
        return self.last(name, len(self)).cpu() if len(self) else torch.empty(0, 0)

    @property
    def loss(self) -> Tensor:
        """E[log q − β log p], or minus the log-likelihood a row (steps, R)."""
        return self._column("loss")

    @property
    def elbo(self) -> Tensor:
        """E[log p − log q] (steps, R); of a fit to a target."""
        return self._column("elbo")

    @property
    def elbo_se(self) -> Tensor:
        """Monte-Carlo standard error of ``elbo`` (steps, R); too large with ``draws="qmc"``.

        It takes draws for independent. One set of even draws does not tell how exact it is; see
        :func:`~nfvi.training.noise.qmc_elbo`.
        """
        return self._column("elbo_se")

    @property
    def log_likelihood(self) -> Tensor:
        """Mean of log q over the rows of the step (steps, R); of a fit to data."""
        return self._column("log_likelihood")

    @property
    def log_likelihood_se(self) -> Tensor:
        """Standard error of ``log_likelihood`` (steps, R); NaN for a batch of one row."""
        return self._column("log_likelihood_se")

    @property
    def grad_norm(self) -> Tensor:
        """Length of the gradient before clipping (steps, R)."""
        return self._column("grad_norm")

    @property
    def beta(self) -> Tensor:
        """Inverse temperature (steps, R); of a fit to a target."""
        return self._column("beta")

    @property
    def lr(self) -> Tensor:
        """Learning rate (steps)."""
        return torch.tensor(self._lr, dtype=torch.float64)

    @property
    def n_mc(self) -> Tensor:
        """Draws, or rows, of each restart in a step (steps); 0 in files that do not have it."""
        return torch.tensor(self._n_mc, dtype=torch.int64)

    @property
    def last_lr(self) -> float:
        """Learning rate of the last step."""
        return self._lr[-1]

    def select(self, *restarts: int) -> History:
        """The record of some of the restarts alone."""
        chosen = History(self.quantity)
        if len(self):
            chosen._table = self._rows[:, :, list(restarts)]
        chosen._lr, chosen._n_mc = list(self._lr), list(self._n_mc)
        return chosen

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors from which the history can be rebuilt."""
        rows = self._rows.clone() if len(self) else torch.empty(0)
        return {"rows": rows, "lr": self.lr, "n_mc": self.n_mc}

    def load_state_dict(
        self, state: dict[str, Tensor], device: torch.device | str | None = None
    ) -> None:
        """Take up a saved record.

        Raises:
            ValueError: its columns are not those of a history, or not as long as each other.
        """
        _check_columns(state, len(self.fields))
        if len(state["rows"]):
            self._table = state["rows"].to(device, copy=True)
        self._lr = state["lr"].tolist()
        self._n_mc = state["n_mc"].tolist() if "n_mc" in state else [0] * len(self._lr)


def _check_columns(state: dict[str, Tensor], fields: int) -> None:
    for name, dtype in (("rows", None), ("lr", torch.float64), ("n_mc", torch.int64)):
        if name not in state and name != "n_mc":
            raise ValueError(f"its tensor 'history.{name}' is not there")
        if name in state and dtype is not None and state[name].dtype != dtype:
            raise ValueError(f"its tensor 'history.{name}' is of {state[name].dtype}, not {dtype}")
    rows, steps = state["rows"], tuple(state["lr"].shape)
    whole = rows.dim() == 3 and rows.shape[1] == fields and rows.is_floating_point()
    if not whole and rows.shape != (0,):
        raise ValueError(
            f"its tensor 'history.rows' has shape {tuple(rows.shape)} and {rows.dtype}; it must be"
            f" (steps, {fields}, restarts) of a floating-point type"
        )
    if steps != (len(rows),) or tuple(state.get("n_mc", state["lr"]).shape) != steps:
        raise ValueError(
            "its tensors 'history.rows', 'history.lr' and 'history.n_mc' differ in length"
        )


def mean_and_error(name: str, terms: Tensor) -> dict[str, Tensor]:
    """The columns ``name`` and ``name_se`` from terms (R, n); the error of a mean of one is NaN."""
    n = terms.shape[1]
    error = terms.std(1) / n**0.5 if n > 1 else torch.full_like(terms[:, 0], torch.nan)
    return {name: terms.mean(1), f"{name}_se": error}
