"""What a fit minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from nfvi.targets import Target, log_prob_anywhere
from nfvi.training.ensemble import Ensemble
from nfvi.training.noise import SobolNoise
from nfvi.training.pieces import LateNoise
from nfvi.utils import at_once

__all__ = ["Evaluation", "Objective", "ReverseKL"]


class Objective(ABC):
    """A loss over the parameters of an ensemble, and what each step evaluates it on."""

    quantity: ClassVar[str]
    """What is recorded beside the loss, and is the higher the better."""
    advice: ClassVar[str]
    """What to look at when the loss is not finite."""
    draws_repeat: ClassVar[bool] = False
    """Whether :meth:`draw` does the same operations on the device at each step, with the numbers of
    the generator alone, so that they can be captured as well."""

    @property
    def rows_a_step(self) -> int | None:
        """Rows of data that a step takes; ``None`` where there are none."""
        return None

    @abstractmethod
    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> Any:
        """What the loss is evaluated on in a step, counted from 0: base draws, or rows of data."""

    def spare(self) -> Objective:
        """The same, to draw from without moving on what this one draws from."""
        return self

    def tensors(self, batch: Any) -> tuple[Tensor, ...]:
        """The tensors of what :meth:`draw` returned."""
        return (batch,)

    def batch_of(self, tensors: Sequence[Tensor], like: Any) -> Any:
        """What :meth:`draw` returns, of such tensors, in the place of those of another batch."""
        return tensors[0]

    def length(self, batch: Any) -> int:
        """How many draws for each restart, or rows, :meth:`draw` returned."""
        return sum(batch.sizes) if isinstance(batch, LateNoise) else int(batch.shape[1])

    def share(self, batch: Any, restarts: slice, draws: slice) -> Any:
        """Some draws or rows of what :meth:`draw` returned, for some of the restarts."""
        return batch[restarts, draws]

    def pieces(self, ensemble: Ensemble, batch: Any) -> Sequence[Any]:
        """What :meth:`draw` returned, in pieces that are evaluated one after the other."""
        return (batch,)

    @abstractmethod
    def __call__(self, ensemble: Ensemble, batch: Any, beta: Tensor) -> tuple[Tensor, Tensor]:
        """One term a draw or row: the loss, which is differentiated, and the quantity.

        Args:
            ensemble: R guides.
            batch: what :meth:`draw` returned.
            beta: inverse temperature of each restart (R).

        Returns:
            Both (R, n).
        """


class Evaluation(NamedTuple):
    """One term a draw (R, n): the loss that is differentiated, and the ELBO, which is not."""

    loss: Tensor
    elbo: Tensor


@dataclass(frozen=True)
class ReverseKL(Objective):
    """Reverse Kullback-Leibler divergence with tempering, E_q[log q(x) − β log p(x)].

    At β = 1 this is −ELBO = KL(q ‖ p) − log Z. ``"path"`` differentiates only through the draws,
    x = f_θ(z), with the θ inside log q_θ held fixed ("sticking the landing"): unbiased, and
    without noise where q = p. ``"total"`` differentiates through both.

    Args:
        target: p.
        n_mc: draws a step for each restart.
        gradient: ``"path"`` or ``"total"``.
        noise: where base draws come from; ``None`` for independent ones.
        common: whether all restarts see the same draws, so that they differ by other things alone.
        bridge: whether the target is tempered to the base density q₀ of the guide, behind its
            placement, and not to a flat one: the loss is E_q[log q − β log p − (1 − β) log q₀].

    Reference:
        Roeder, Wu and Duvenaud, Sticking the landing, 2017. Vaitl, Nicoli, Nakajima and Kessel,
        Gradients should stay on path, 2022.
    """

    quantity = "elbo"
    draws_repeat = True
    advice = (
        "Is the target finite everywhere? If it is, try a smaller lr= or jitter=, or"
        " dtype=torch.float64."
    )

    target: Target
    n_mc: int
    gradient: Literal["path", "total"] = "path"
    noise: SobolNoise | None = None
    bridge: bool = False
    common: bool = False

    def with_draws(self, n_mc: int) -> ReverseKL:
        """The same with another number of draws a step."""
        noise = None if self.noise is None else self.noise.resized(n_mc)
        return replace(self, n_mc=n_mc, noise=noise)

    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> Tensor | LateNoise:
        """Base draws (R, n, d), or what makes them piece by piece where they are too many."""
        if self.noise is not None:
            return self.noise.draw(ensemble.size, generator)
        n, device = self.n_mc, ensemble.flat.device
        if self.common:
            one = ensemble.template.base_sample(1, n, generator=generator)
            return one.expand(ensemble.size, -1, -1)
        if at_once(ensemble.size * ensemble.dim, n, device) < n:
            return LateNoise(ensemble, n, ensemble.at_once(n), generator)
        return ensemble.draw(n, generator)

    def pieces(self, ensemble: Ensemble, batch: Tensor | LateNoise) -> Sequence[Tensor]:
        """Base draws (R, m, d) in pieces, by the numbers that the flows keep for the gradient."""
        if isinstance(batch, LateNoise):
            return batch
        n = batch.shape[1]
        count = ensemble.at_once(n)
        return (batch,) if count == n else batch.split(count, 1)

    def __call__(self, ensemble: Ensemble, batch: Tensor, beta: Tensor) -> Evaluation:
        """Evaluate at base draws (R, n, d) with the temperature β (R) of each restart."""

        def log_p(x: Tensor) -> Tensor:
            values: Tensor = log_prob_anywhere(self.target, x.flatten(0, 1))
            return values.reshape(x.shape[:2])

        return self.evaluated(ensemble, batch, beta, log_p)

    def evaluated(
        self,
        ensemble: Ensemble,
        noise: Tensor,
        beta: Tensor,
        log_p_of: Callable[[Tensor], Tensor],
    ) -> Evaluation:
        """The same, with log p (R, n) as a function of the draws x (R, n, d)."""
        x, log_q = ensemble.push(noise)
        if self.gradient == "path":
            log_q = ensemble.log_prob(x, noise)
        log_p = log_p_of(x)
        beta = beta.unsqueeze(-1)
        loss = log_q - beta * log_p
        if self.bridge and bool((beta < 1).any()):
            loss = loss - torch.where(beta < 1, (1 - beta) * ensemble.log_start(x), 0.0)
        return Evaluation(loss, (log_p - log_q).detach())
