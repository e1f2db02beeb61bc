"""The fitting loop: noise, loss, backward, guard, step, schedule, callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim

from nfvi.errors import FitError
from nfvi.targets.base import Target
from nfvi.training.ensemble import Ensemble
from nfvi.training.guard import PATIENCE, Guard
from nfvi.training.history import History
from nfvi.training.interrupt import catch_interrupt
from nfvi.training.objectives import Evaluation, ReverseKL
from nfvi.training.optimizers import keep_rows
from nfvi.training.schedule import LearningRate, Tempering
from nfvi.training.state import Callback, CallbackLike, Stop, TrainState

__all__ = ["Trainer"]


class Trainer:
    """Minimises an objective over the parameters of an ensemble of guides.

    Args:
        ensemble: the guides; their parameters are changed in place.
        target: the log-density.
        objective: the loss and how it is differentiated.
        optimizer: over ``[ensemble.flat]``; its learning rates are those at the top of the
            schedule.
        schedule: learning-rate factors; its length is the number of steps.
        tempering: β of each restart.
        generator: source of the base draws, on the device of the ensemble.
        settings: JSON-able values kept in checkpoints.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        target: Target,
        objective: ReverseKL,
        optimizer: optim.Optimizer,
        schedule: LearningRate,
        tempering: Tempering,
        generator: torch.Generator,
        settings: dict[str, Any],
    ) -> None:
        self.ensemble, self.target, self.objective = ensemble, target, objective
        self.optimizer, self.schedule, self.tempering = optimizer, schedule, tempering
        self.generator, self.settings = generator, settings
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self.guard = Guard(ensemble.flat.detach())
        self.history = History()
        self.gradient = torch.zeros_like(ensemble.flat)
        self.last_good = ensemble.flat.detach().clone()
        self.group_gradients: Tensor | None = None
        self.gradient_evaluations = 0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history)

    def run(self, callbacks: Sequence[CallbackLike] = (), steps: int | None = None) -> str:
        """Go on to the end of the schedule, or for so many steps.

        Args:
            callbacks: called after every step.
            steps: how many; what goes past the end of the schedule becomes a new cycle of it.

        Returns:
            Why it ended: ``"steps"``, ``"interrupted"``, or the reason of a callback.

        Raises:
            FitError: every restart was dropped.
        """
        last = self.schedule.steps if steps is None else self.step + steps
        if last > self.schedule.steps:
            self.schedule = self.schedule.extend(last - self.schedule.steps)
        state = TrainState(self)
        with catch_interrupt() as interruption, _opened(callbacks, state):
            while self.step < last:
                groups = max((_groups(c, self.step + 1) for c in callbacks), default=0)
                self._one_step(groups)
                stops = [s for s in [c(state) for c in callbacks] if isinstance(s, Stop)]
                if stops:
                    return stops[0].reason
                if interruption.requested:
                    return "interrupted"
        return "steps"

    def _one_step(self, groups: int) -> None:
        flat, step = self.ensemble.flat, self.step
        factor = self.schedule(step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        beta = self.tempering(step, flat)
        noise = self.ensemble.draw(self.objective.n_mc, self.generator)
        flat.grad = None
        value = self._evaluate(noise, beta)
        loss = value.loss.mean(1)
        self.group_gradients = _by_group(value.loss, flat, groups) if groups else None
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self.gradient = torch.zeros_like(flat) if flat.grad is None else flat.grad
        raw = self.gradient.clone() if not bool(self.gradient.isfinite().all()) else self.gradient
        good, norm = self.guard(loss.detach(), self.gradient)
        self.last_good = torch.where(good.unsqueeze(1), flat.detach(), self.last_good)
        self._update(good, noise, beta)
        self.history.append(
            self.peaks[0] * factor,
            loss=loss.detach(),
            elbo=value.elbo.mean(1),
            elbo_se=value.elbo.std(1) / value.elbo.shape[1] ** 0.5,
            grad_norm=norm,
            beta=beta,
        )
        if not bool(self.guard.alive.any()):
            raise self._failure(loss.detach(), raw)

    def _evaluate(self, noise: Tensor, beta: Tensor) -> Evaluation:
        self.gradient_evaluations += noise.shape[0] * noise.shape[1]
        return self.objective(self.ensemble, self.target, noise, beta)

    def _update(self, good: Tensor, noise: Tensor, beta: Tensor) -> None:
        if bool(good.all()):
            self.optimizer.step(self._closure(noise, beta))  # type: ignore[arg-type]
        elif bool(good.any()):
            restore = keep_rows(self.optimizer, self.ensemble.flat)
            self.optimizer.step()
            restore(good)

    def _closure(self, noise: Tensor, beta: Tensor) -> Any:
        """What a line search calls: the loss again on the draws of this step."""
        if not isinstance(self.optimizer, optim.LBFGS):
            return None

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self._evaluate(noise, beta).loss.mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return closure

    def _failure(self, loss: Tensor, gradient: Tensor) -> FitError:
        named = self.ensemble.named(gradient)
        bad = [name for name, value in named.items() if not bool(value.isfinite().all())]
        best = int(self.guard.skipped.argmin())
        with torch.no_grad():
            self.ensemble.flat.copy_(self.last_good)
        guide = self.ensemble.guide(best) if bool(self.guard.weight[best] > 0) else None
        left = "The last good guide is error.guide" if guide else "From the first, no step was good"
        return FitError(
            f"every restart was dropped at step {self.step}: its loss or gradient was not finite"
            f" {PATIENCE} times in a row ({_where(bad, self.ensemble)}; losses"
            f" {[round(v, 3) for v in loss.tolist()]}). Is the target finite everywhere? If it is,"
            f" try a smaller lr= or jitter=, or dtype=torch.float64. {left}",
            guide,
        )

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able values from which :meth:`restore` goes on bit for bit."""
        tensors = {"flat": self.ensemble.flat.detach(), "generator": self.generator.get_state()}
        tensors |= {f"guard.{k}": v for k, v in self.guard.state_dict().items()}
        tensors |= {f"history.{k}": v for k, v in self.history.state_dict().items()}
        tensors |= {f"fixed.{k}": v for k, v in self.ensemble.fixed.items()}
        scalars: dict[str, Any] = {}
        for key, value in self.optimizer.state.get(self.ensemble.flat, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{key}"] = value
            else:
                scalars[key] = value
        values = {
            "cycles": self.schedule.cycles,
            "lengths": self.tempering.lengths,
            "optimizer": type(self.optimizer).__name__,
            "optimizer_state": scalars,
            "gradient_evaluations": self.gradient_evaluations,
        }
        return tensors, {**self.settings, **values}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take up a :meth:`snapshot`."""
        flat = self.ensemble.flat
        flat.copy_(tensors["flat"])
        self.generator.set_state(tensors["generator"].cpu())
        self.guard.load_state_dict(_under("guard.", tensors))
        self.history.load_state_dict(_under("history.", tensors), flat.device)
        self.ensemble.fixed.update(_under("fixed.", tensors))
        self.schedule = LearningRate(tuple((int(n), float(p)) for n, p in values["cycles"]))
        self.tempering = Tempering(tuple(values["lengths"]))
        self.gradient_evaluations = values["gradient_evaluations"]
        state = {**_under("optimizer.", tensors), **values["optimizer_state"]}
        if state:
            self.optimizer.state[flat] = state


def _by_group(loss: Tensor, flat: Tensor, groups: int) -> Tensor:
    """The gradient of the mean loss over each group of draws: (G, R, P)."""
    n = loss.shape[1]
    groups = min(groups, n)
    member = torch.arange(n, device=loss.device) * groups // n
    weight = torch.nn.functional.one_hot(member, groups).to(loss.dtype).T
    weight = weight / weight.sum(1, keepdim=True)
    (gradient,) = torch.autograd.grad(
        loss,
        flat,
        weight.unsqueeze(1).expand(-1, loss.shape[0], -1),
        retain_graph=True,
        is_grads_batched=True,
    )
    return gradient


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _where(bad: list[str], ensemble: Ensemble) -> str:
    if not bad:
        return "the gradient of every parameter is finite"
    layers = list(ensemble.template.formula)
    index = int(bad[0].rsplit("_", 1)[1])
    return f"first in flow {index}, {layers[index]}, parameter {bad[0]}"


def _groups(callback: CallbackLike, step: int) -> int:
    return callback.groups(step) if isinstance(callback, Callback) else 0


@contextmanager
def _opened(callbacks: Sequence[CallbackLike], state: TrainState) -> Iterator[None]:
    ours = [c for c in callbacks if isinstance(c, Callback)]
    opened: list[Callback] = []
    try:
        for callback in ours:
            callback.open(state)
            opened.append(callback)
        yield
    finally:
        for callback in reversed(opened):
            callback.close(state)
