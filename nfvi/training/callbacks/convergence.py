"""Stopping a fit that has converged."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nfvi.training.state import Callback, Stop, TrainState
from nfvi.utils import check_positive, check_whole, next_multiple

__all__ = ["CheckElboConvergence", "CheckParametersConvergence", "Gain", "gain_between"]

# PyMC3's, so that its arguments mean the same here.
_EPSILON = 1e-6
# The ELBOs of neighbouring steps are correlated: means of ten blocks tell their true spread, if a
# block is longer than that memory; more blocks would be shorter, fewer would tell it badly.
_BLOCKS = 10
_WORDS = {"elbo": "ELBO", "log_likelihood": "log-likelihood"}


class CheckParametersConvergence(Callback):
    """Stops when the parameters have changed little since the last check, as in PyMC3.

    The parameters θ of a restart, all in one vector, have converged when ‖δ‖_ord < tolerance,
    where θ′ are those of the check before and δ is one of::

        |θ − θ′|                    diff="absolute"
        |θ − θ′| / (|θ′| + 10⁻⁶)    diff="relative"

    The fit stops when this is so for every restart that has not been dropped. In PyMC3 the
    relative change of a parameter that stays at 0 is 1; here it is 0.

    Parameters keep moving with the noise of the gradient at a learning rate that is not 0, and
    stand still when it is decayed whether or not there is more to gain: in most fits
    :class:`CheckElboConvergence` is the better test.

    Args:
        every: steps between checks, at least 1.
        tolerance: over 0.
        diff: ``"relative"`` or ``"absolute"``.
        ord: of the vector norm, as in ``numpy.linalg.norm``; ``inf`` is the largest entry.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        every: int = 100,
        tolerance: float = 1e-3,
        diff: Literal["relative", "absolute"] = "relative",
        ord: float = math.inf,
    ) -> None:
        check_whole("every", every, 1)
        check_positive("tolerance", tolerance)
        if diff not in ("relative", "absolute"):
            raise ValueError(f'diff must be "relative" or "absolute", got {diff!r}')
        if not isinstance(ord, int | float) or math.isnan(ord):
            raise ValueError(f"ord must be a number: the parameters are one vector; got {ord!r}")
        self.every, self.tolerance, self.diff, self.ord = every, tolerance, diff, ord
        self._previous: Tensor | None = None

    def open(self, state: TrainState) -> None:
        if state.step == 0:
            self._previous = None

    def next_look(self, step: int) -> int:
        return step + 1 if self._previous is None else next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        previous = self._previous
        if previous is not None and state.step % self.every:
            return None
        rows = [
            value.flatten(1) if value.dim() > 1 else value.unsqueeze(1)
            for value in state.parameters.values()
        ]
        self._previous = torch.cat(rows, 1)
        if previous is None:
            return None
        change = (self._previous - previous).abs()
        if self.diff == "relative":
            change = change / (previous.abs() + _EPSILON)
        norm = torch.linalg.vector_norm(change, self.ord, dim=1)
        if not bool((norm < self.tolerance)[state.alive].all()):
            return None
        return Stop(f"parameters converged at step {state.step}")

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self._previous is None else {"previous": self._previous}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._previous = state.get("previous")


class Gain(NamedTuple):
    """By how much the mean ELBO of a window exceeds that of the window before (nats), each (R)."""

    gain: Tensor
    error: Tensor


class CheckElboConvergence(Callback):
    """Stops when the ELBO has certainly gained less than ``tolerance`` nats in a window of steps.

    The mean ELBO of the last ``window`` steps minus that of the ``window`` steps before is the
    gain, with standard error se; see :func:`gain_between`. The fit stops when ::

        gain + z · se < tolerance

    in every restart that has not been dropped, and tempering was over (β = 1) in both windows.
    While the true gain is at least ``tolerance``, a check fires with a probability of at most
    Φ(−z), 0.1 % for z = 3, and about twice that while the parameters wander slowly. A fit whose
    ELBO is too noisy for its windows is never stopped: raise ``tolerance``, ``window`` or n_mc.

    What it sees is the plateau at the present learning rate. The decay that the rest of the
    schedule would have brought may still be worth some hundredths of a nat; ``fit.refine`` by
    the steps that were left makes that up. In a fit to data it watches the log-likelihood of the
    batches, with their standard errors, in place of the ELBO. The answer depends on
    ``fit.history`` alone, so that a resumed fit stops where the uninterrupted one does.

    Args:
        every: steps between checks, at least 1.
        window: steps in a window, at least 20; nothing is checked in the first 2 · window steps.
        tolerance: nats a window, over 0.
        z: quantile of the standard normal, at least 0.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, every: int = 100, window: int = 500, tolerance: float = 0.02, z: float = 3.0
    ) -> None:
        check_whole("every", every, 1)
        check_whole("window", window, 2 * _BLOCKS)
        check_positive("tolerance", tolerance)
        if not 0 <= z < math.inf:
            raise ValueError(f"z must be a number of at least 0, got {z!r}")
        self.every, self.window, self.tolerance, self.z = every, window, tolerance, z

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        if state.step % self.every or state.step < 2 * self.window:
            return None
        history, alive = state.history, state.alive
        if "beta" in history.fields:
            beta = history.last("beta", 2 * self.window)[:, alive]
            if not bool((beta == 1).all()):
                return None
        value, error = (
            history.last(name, 2 * self.window)[:, alive]
            for name in (history.quantity, f"{history.quantity}_se")
        )
        found = gain_between(value, error)
        bound = found.gain + self.z * found.error
        if not bool((bound < self.tolerance).all()):
            return None
        return Stop(
            f"{_WORDS[history.quantity]} converged at step {state.step}: in {self.window} steps it"
            " gained at most"
            f" {float(bound.max()):.2g} nats"
        )


def gain_between(elbo: Tensor, elbo_se: Tensor) -> Gain:
    """The gain in mean ELBO from the first half of some steps to the second.

    Draws are independent from step to step, so the Monte-Carlo variance of the mean over W steps
    is Σ elbo_se² / W². The parameters move about as well, and that is correlated from step to
    step; the scatter of the means over 10 blocks of a window has it all, if blocks are longer
    than the correlation. The larger of the two variances counts. Steps without a finite ELBO are
    left out, and a window in which half of them are is no ground to stop: its error is infinite.

    Args:
        elbo: ELBO of each step (2W, R).
        elbo_se: its Monte-Carlo standard error (2W, R).
    """
    means, variances = [], []
    for value, se in zip(elbo.double().chunk(2), elbo_se.double().chunk(2), strict=True):
        finite = value.isfinite() & se.isfinite()
        count = finite.sum(0)
        value = torch.where(finite, value, torch.nan)
        sampling = torch.where(finite, se.square(), 0.0).sum(0) / count.square()
        blocks = torch.stack([block.nanmean(0) for block in value.tensor_split(_BLOCKS)])
        variance = torch.maximum(sampling, blocks.var(0) / _BLOCKS)
        enough = (2 * count > value.shape[0]) & variance.isfinite()
        means.append(value.nanmean(0).nan_to_num())
        variances.append(torch.where(enough, variance, torch.inf))
    return Gain(means[1] - means[0], (variances[0] + variances[1]).sqrt())
