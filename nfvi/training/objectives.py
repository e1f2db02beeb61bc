"""What a fit minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from nfvi.targets.base import Target
from nfvi.training.ensemble import Ensemble

__all__ = ["Evaluation", "ReverseKL"]


class Evaluation(NamedTuple):
    """One term a draw (R, n): the loss that is differentiated, and the ELBO, which is not."""

    loss: Tensor
    elbo: Tensor


@dataclass(frozen=True)
class ReverseKL:
    """Reverse Kullback-Leibler divergence with tempering, E_q[log q(x) − β log p(x)].

    At β = 1 this is −ELBO = KL(q ‖ p) − log Z. ``"path"`` differentiates only through the draws,
    x = f_θ(z), with the θ inside log q_θ held fixed ("sticking the landing"): unbiased, and
    without noise where q = p. ``"total"`` differentiates through both.

    Args:
        n_mc: draws a step for each restart.
        gradient: ``"path"`` or ``"total"``.

    Reference:
        Roeder, Wu and Duvenaud, Sticking the landing, 2017. Vaitl, Nicoli, Nakajima and Kessel,
        Gradients should stay on path, 2022.
    """

    n_mc: int
    gradient: Literal["path", "total"] = "path"

    def __call__(
        self, ensemble: Ensemble, target: Target, noise: Tensor, beta: Tensor
    ) -> Evaluation:
        """Evaluate at base draws (R, n, d) with the temperature β (R) of each restart."""
        x, log_q = ensemble.push(noise)
        if self.gradient == "path":
            log_q = ensemble.log_prob(x, noise)
        log_p = target.log_prob(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return Evaluation(log_q - beta.unsqueeze(-1) * log_p, (log_p - log_q).detach())
