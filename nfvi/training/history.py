"""The record of a fit, one row a step."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["History"]

_FIELDS = ("loss", "elbo", "elbo_se", "grad_norm", "beta")


class History:
    """Loss, ELBO, its standard error, gradient length and β of every restart at every step.

    ``loss``, ``elbo``, ``elbo_se``, ``grad_norm`` and ``beta`` are (steps, R); ``lr`` is (steps).
    ``loss`` is E[log q − β log p] over the step's own draws and ``elbo`` E[log p − log q] (nats);
    ``grad_norm`` is taken before clipping.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._lr: list[float] = []

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, lr: float, **values: Tensor) -> None:
        """Add a step; each value (R)."""
        self._rows.append(torch.stack([values[name] for name in _FIELDS]))
        self._lr.append(lr)

    def last(self, name: str, steps: int) -> Tensor:
        """The last so many rows (at most ``steps``, R) of one column."""
        return torch.stack(self._rows[-steps:])[:, _FIELDS.index(name)]

    def _column(self, name: str) -> Tensor:
        return self.last(name, len(self)).cpu() if self._rows else torch.empty(0, 0)

    @property
    def loss(self) -> Tensor:
        """E[log q − β log p] (steps, R)."""
        return self._column("loss")

    @property
    def elbo(self) -> Tensor:
        """E[log p − log q] (steps, R)."""
        return self._column("elbo")

    @property
    def elbo_se(self) -> Tensor:
        """Monte-Carlo standard error of ``elbo`` (steps, R)."""
        return self._column("elbo_se")

    @property
    def grad_norm(self) -> Tensor:
        """Length of the gradient before clipping (steps, R)."""
        return self._column("grad_norm")

    @property
    def beta(self) -> Tensor:
        """Inverse temperature (steps, R)."""
        return self._column("beta")

    @property
    def lr(self) -> Tensor:
        """Learning rate (steps)."""
        return torch.tensor(self._lr, dtype=torch.float64)

    @property
    def last_lr(self) -> float:
        """Learning rate of the last step."""
        return self._lr[-1]

    def select(self, restart: int) -> History:
        """The record of one restart alone."""
        chosen = History()
        chosen._rows = [row[:, restart : restart + 1] for row in self._rows]
        chosen._lr = list(self._lr)
        return chosen

    def state_dict(self) -> dict[str, Tensor]:
        """Two tensors from which the history can be rebuilt."""
        rows = torch.stack(self._rows) if self._rows else torch.empty(0)
        return {"rows": rows, "lr": self.lr}

    def load_state_dict(
        self, state: dict[str, Tensor], device: torch.device | str | None = None
    ) -> None:
        """Take up a saved record."""
        self._rows = list(state["rows"].to(device))
        self._lr = state["lr"].tolist()
