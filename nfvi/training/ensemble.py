"""Restarts of one guide as one more batch dimension."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nfvi.errors import FormulaError
from nfvi.guides import Guide, numbers_of
from nfvi.utils import kept_at_once

__all__ = ["Ensemble"]


class Ensemble:
    """R guides of one formula whose trainable parameters are the rows of one matrix.

    One leaf tensor (R, P) keeps the optimiser, the clipping and the finite check to a few
    operations a step whatever the number of layers. R = 1 runs the plain module; R > 1 runs
    under ``torch.vmap``. Parameters that are frozen (``requires_grad=False``) and buffers are
    carried along unchanged.

    Args:
        guides: at least one; all of the same formula, base and dimension.

    Raises:
        FormulaError: no flow has parameters that can be trained.
    """

    def __init__(self, guides: Sequence[Guide]) -> None:
        self.template = guides[0]
        self._log_prob = _LogProb(self.template)
        trained = {n: p for n, p in self.template.named_parameters() if p.requires_grad}
        if not trained:
            raise FormulaError(
                f"{str(self.template.formula)!r} has no parameters to fit: add flows that do,"
                " such as scale-loc"
            )
        self._names = list(trained)
        self._shapes = [p.shape for p in trained.values()]
        self._sizes = [p.numel() for p in trained.values()]
        rows = [
            torch.cat([dict(g.named_parameters())[n].reshape(-1) for n in trained]) for g in guides
        ]
        self.flat = torch.stack(rows).detach().requires_grad_()
        self.fixed = _stack_fixed(guides, trained)

    def at(self, flat: Tensor) -> Ensemble:
        """The same guides at other parameters (R, P)."""
        other = copy.copy(self)
        other.flat = flat
        return other

    @property
    def size(self) -> int:
        """R, the number of restarts."""
        return self.flat.shape[0]

    @property
    def dim(self) -> int:
        """d, the dimension of the draws."""
        return self.template.dim

    def at_once(self, n: int) -> int:
        """How many of n draws or rows for each restart a step can take with its gradient."""
        return kept_at_once(self._written * self.size, n, self.flat.device)

    @cached_property
    def _written(self) -> float:
        return numbers_of(self.template).written

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Base draws (R, n, d)."""
        return self.template.base_sample(self.size, n, generator=generator)

    def push(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x (R, n, d) and log q(x) (R, n) for base draws (R, n, d)."""
        if self.size == 1:
            x, log_q = functional_call(self.template, self._module_state(self.flat), (noise[0],))
            return x.unsqueeze(0), log_q.unsqueeze(0)
        return torch.vmap(self._push_one)(self.flat, self.fixed, noise)

    def log_likelihood(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log q(x | context) (R, n) of rows x (n, d), differentiable in the parameters."""
        if self.size == 1:
            state = self._module_state(self.flat)
            return self._call_log_prob(state, x, None, context).unsqueeze(0)
        each = torch.vmap(lambda f, fixed: self._log_likelihood_one(f, fixed, x, context))
        return each(self.flat, self.fixed)

    def log_prob(self, x: Tensor, noise: Tensor) -> Tensor:
        """log q(x) (R, n) with the parameters held fixed, at x (R, n, d) pushed from ``noise``."""
        flat = self.flat.detach()
        if self.size == 1:
            state = self._module_state(flat)
            return self._call_log_prob(state, x[0], noise[0]).unsqueeze(0)
        return torch.vmap(self._log_prob_one)(flat, self.fixed, x, noise)

    def scores(self, noise: Tensor, restart: int) -> Tensor:
        """The gradients (n, P) of log q at the draws of one restart from ``noise`` (n, d).

        Each draw is held fixed where its log q is differentiated.
        """
        fixed = {name: value[restart] for name, value in self.fixed.items()}
        flat = self.flat.detach()[restart]

        def log_prob(flat: Tensor, x: Tensor, noise: Tensor) -> Tensor:
            return self._log_prob_one(flat, fixed, x[None], noise[None])[0]

        with torch.no_grad():
            x, _ = self._push_one(flat, fixed, noise)
        return torch.vmap(torch.func.grad(log_prob), (None, 0, 0))(flat, x, noise)  # type: ignore[no-any-return]

    def log_start(self, x: Tensor) -> Tensor:
        """log q₀(x) (R, n) at x (R, n, d): the base behind the placement, as without flows."""
        start = _LogStart(self.template)
        fixed = {name: self.fixed[name] for name in start.state_dict()}
        return torch.vmap(lambda state, x: functional_call(start, state, (x,)))(fixed, x)  # type: ignore[no-any-return]

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """Rows (\\*, P) of parameters or gradients by tracked name: each (\\*, \\*shape)."""
        tracked = self.template.tracked_names()
        return {tracked[name]: value for name, value in self._unpack(values).items()}

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the restarts; ``flat`` is a new leaf then."""
        self.flat = self.flat.detach()[rows].clone().requires_grad_()
        self.fixed = {name: value[rows] for name, value in self.fixed.items()}

    def guide(self, restart: int) -> Guide:
        """A new guide with the parameters of one restart."""
        guide = copy.deepcopy(self.template)
        values = self._unpack(self.flat.detach()[restart])
        values.update({name: value[restart] for name, value in self.fixed.items()})
        guide.load_state_dict({name: value.clone() for name, value in values.items()})
        return guide

    def _push_one(
        self, flat: Tensor, fixed: dict[str, Tensor], noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        return functional_call(self.template, self._unpack(flat) | fixed, (noise,))  # type: ignore[no-any-return]

    def _log_prob_one(
        self, flat: Tensor, fixed: dict[str, Tensor], x: Tensor, noise: Tensor
    ) -> Tensor:
        return self._call_log_prob(self._unpack(flat) | fixed, x, noise)

    def _log_likelihood_one(
        self, flat: Tensor, fixed: dict[str, Tensor], x: Tensor, context: Tensor | None
    ) -> Tensor:
        return self._call_log_prob(self._unpack(flat) | fixed, x, None, context)

    def _call_log_prob(
        self,
        state: dict[str, Tensor],
        x: Tensor,
        noise: Tensor | None,
        context: Tensor | None = None,
    ) -> Tensor:
        prefixed = {f"guide.{name}": value for name, value in state.items()}
        return functional_call(self._log_prob, prefixed, (x, noise, context))  # type: ignore[no-any-return]

    def _module_state(self, flat: Tensor) -> dict[str, Tensor]:
        return self._unpack(flat[0]) | {name: value[0] for name, value in self.fixed.items()}

    def _unpack(self, values: Tensor) -> dict[str, Tensor]:
        parts = values.split(self._sizes, dim=-1)
        lead = values.shape[:-1]
        return {
            name: part.reshape(lead + shape)
            for name, part, shape in zip(self._names, parts, self._shapes, strict=True)
        }


class _LogProb(nn.Module):
    """``guide.log_prob`` as a forward, which is what ``functional_call`` calls."""

    def __init__(self, guide: Guide) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor, z: Tensor | None, context: Tensor | None) -> Tensor:
        return self.guide.log_prob(x, z, context)


class _LogStart(nn.Module):
    """The log-density of the base behind the placement of a guide, as a forward likewise."""

    def __init__(self, guide: Guide) -> None:
        super().__init__()
        self.base, self.placement = guide.base, guide.placement

    def forward(self, x: Tensor) -> Tensor:
        if self.placement is None:
            return self.base.log_prob(x)
        z, ladj = self.placement.inverse(x)
        return self.base.log_prob(z) + ladj


def _stack_fixed(guides: Sequence[Guide], trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Frozen parameters and buffers of all guides, stacked by name."""
    states = [guide.state_dict() for guide in guides]
    return {
        name: torch.stack([state[name] for state in states])
        for name in states[0]
        if name not in trained
    }
