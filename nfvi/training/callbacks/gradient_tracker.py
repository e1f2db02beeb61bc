"""Recording parameters and gradients, and how far the gradients are from noise."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from nfvi.training.state import Callback, Stop, TrainState
from nfvi.utils import check_whole, next_multiple

__all__ = ["GradientTracker"]

_KEYS = ("parameters", "gradients", "norms", "snr", "flow_snr")


class GradientTracker(Callback):
    """Records parameters, the gradients that the steps used, and their signal-to-noise ratio.

    The n_mc draws of a tracked step are split into G groups, and g₁ … g_G are the gradients of
    the loss over each, before clipping. With ḡ their mean and s_i their standard deviation in
    entry i, the ratio of a parameter, or of all parameters of a flow together, is::

        SNR = ‖ḡ‖ / SE,   SE² = Σ_i s_i² / G,

    the length of the gradient over the standard error of it. It is about 1 where the gradient
    is noise alone, and 0 where it is exactly 0, as the path gradient of a perfect fit. It is NaN
    for a step that was skipped. The even draws of ``draws="qmc"``, the default of most fits, have
    less noise than their groups tell: the ratio is then too low, and below 1 where there is noise
    alone. Give ``draws="iid"`` to have it right.

    A fit with the tracker is bit for bit the fit without it. T records of R restarts with P
    parameters take a little over 2·T·R·P numbers on the CPU, and a tracked step takes longer than
    another: raise ``every`` for long fits of many layers. A tracker that is used for a second fit
    forgets the first; with :meth:`nfvi.Fit.refine` it continues.

    Args:
        every: steps between records, at least 1; steps that are multiples of it are recorded.
        groups: G, at least 2; at most n_mc are used.

    Attributes:
        every: steps between records.
        flows: the flow of each layer (n_flows), in order of application: ``("planar", "planar")``.
        best: the restart with the highest ELBO, over the 50 steps before the last record.

    Raises:
        ValueError: ``every`` or ``groups`` is out of its range.

    Example:
        >>> from nfvi import NFVI
        >>> tracker = GradientTracker(every=10)
        >>> fit = NFVI("planar*2").fit(
        ...     lambda z: -(z**2).sum(-1) / 2, dim=2, steps=100, restarts=3, callbacks=[tracker]
        ... )
        >>> tracker.gradients["u_0"].shape, tracker.norms.shape
        (torch.Size([10, 3, 2]), torch.Size([10, 3, 2]))
    """

    def __init__(self, every: int = 1, groups: int = 16) -> None:
        check_whole("every", every, 1)
        check_whole("groups", groups, 2)
        self.every = every
        self.flows: tuple[str, ...] = ()
        self.best = 0
        self._groups = groups
        self._steps: list[int] = []
        # One row for each record: a fit of many layers would else make millions of tensors.
        self._rows: dict[str, list[Tensor]] = {key: [] for key in _KEYS}
        self._shapes: dict[str, torch.Size] = {}

    def __repr__(self) -> str:
        return f"<GradientTracker of {len(self.flows)} flows: {len(self)} records>"

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> Tensor:
        """The steps that were recorded (T), counted from 1."""
        return torch.tensor(self._steps, dtype=torch.int64)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Parameters after each step, by name (``u_0``, …): (T, R, \\*shape)."""
        return self._by_name("parameters")

    @property
    def gradients(self) -> dict[str, Tensor]:
        """The gradients that each step used, after clipping, by name: (T, R, \\*shape)."""
        return self._by_name("gradients")

    @property
    def norms(self) -> Tensor:
        """Length of those gradients, all parameters of a flow together: (T, R, n_flows)."""
        return self._stack("norms")

    @property
    def snr(self) -> dict[str, Tensor]:
        """Signal-to-noise ratio of the gradient of each parameter, by name: (T, R)."""
        return dict(zip(self._shapes, self._stack("snr").unbind(-1), strict=True))

    @property
    def flow_snr(self) -> Tensor:
        """Signal-to-noise ratio of the gradient of each flow: (T, R, n_flows)."""
        return self._stack("flow_snr")

    def select(self, restart: int) -> GradientTracker:
        """The records of one restart alone, with R = 1."""
        chosen = copy.copy(self)
        chosen._steps, chosen.best = list(self._steps), 0
        chosen._rows = {
            key: [row[restart].unsqueeze(0) for row in rows] for key, rows in self._rows.items()
        }
        return chosen

    def groups(self, step: int) -> int:
        return self._groups if step % self.every == 0 else 0

    def open(self, state: TrainState) -> None:
        self.flows = state.flows
        self._shapes = {name: value.shape[1:] for name, value in state.parameters.items()}
        kept = sum(step <= state.step for step in self._steps)
        self._steps = self._steps[:kept]
        self._rows = {key: rows[:kept] for key, rows in self._rows.items()}

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        groups = state.group_gradients
        if state.step % self.every == 0 and groups is not None:
            self._steps.append(state.step)
            self.best = state.best
            gradients, by_group = _flatten(state.gradients, 1), _flatten(groups, 2)
            signal, error = by_group.mean(0), by_group.var(0) / by_group.shape[0]
            new = {
                "parameters": _flatten(state.parameters, 1),
                "gradients": gradients,
                "norms": self._sum(gradients.square(), per_flow=True).sqrt(),
                "snr": self._ratio(signal, error, per_flow=False),
                "flow_snr": self._ratio(signal, error, per_flow=True),
            }
            for key, value in new.items():
                self._rows[key].append(value.cpu())
        return None

    def state_dict(self) -> dict[str, Tensor]:
        rows = {f"rows.{key}": torch.stack(rows) for key, rows in self._rows.items() if rows}
        return {"steps": self.steps, "best": torch.tensor(self.best), **rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._steps, self.best = state["steps"].tolist(), int(state["best"])
        self._rows = {key: list(state[f"rows.{key}"].cpu()) if self._steps else [] for key in _KEYS}

    def _ratio(self, signal: Tensor, error: Tensor, *, per_flow: bool) -> Tensor:
        """‖ḡ‖ / SE from ḡ and the squared error of each entry, both (R, P)."""
        error = self._sum(error, per_flow=per_flow).sqrt()
        # Without noise and without a signal there is no signal: 0, not 0/0.
        error = error.clamp_min(torch.finfo(error.dtype).tiny)
        return self._sum(signal.square(), per_flow=per_flow).sqrt() / error

    def _sum(self, entries: Tensor, *, per_flow: bool) -> Tensor:
        """Sums of entries (R, P) over each flow (R, n_flows) or parameter (R, n_parameters)."""
        sums = {name: part.sum(-1) for name, part in self._split(entries).items()}
        if not per_flow:
            return torch.stack([*sums.values()], -1)
        flows = entries.new_zeros((*entries.shape[:-1], len(self.flows)))
        for name, column in sums.items():
            flows[..., int(name.rsplit("_", 1)[1])] += column
        return flows

    def _by_name(self, key: str) -> dict[str, Tensor]:
        return {
            name: part.reshape(*part.shape[:-1], *self._shapes[name])
            for name, part in self._split(self._stack(key)).items()
        }

    def _split(self, entries: Tensor) -> dict[str, Tensor]:
        """Entries (\\*, P) by parameter, each (\\*, size)."""
        parts = entries.split([shape.numel() for shape in self._shapes.values()], -1)
        return dict(zip(self._shapes, parts, strict=True))

    def _stack(self, key: str) -> Tensor:
        rows = self._rows[key]
        if not rows:
            raise ValueError(f"nothing was recorded: no step was a multiple of every={self.every}")
        return torch.stack(rows)


def _flatten(values: Mapping[str, Tensor], lead: int) -> Tensor:
    """Named tensors (\\*lead, \\*shape) side by side: a new tensor (\\*lead, P)."""
    return torch.cat([value.reshape(*value.shape[:lead], -1) for value in values.values()], -1)
