"""A step of a fit in tensor operations alone: no number goes to the host to decide what comes next.

It does what the loop does step by step, to the last bit; the learning rate is a float32 on the
device. So it can be recorded once as a CUDA graph, and run again without Python.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim.adam import adam

from nfvi.training.device_history import ChunkTables
from nfvi.training.guard import PATIENCE, factors, limits, remembered
from nfvi.training.history import mean_and_error
from nfvi.training.loop_state import LoopState

__all__ = ["BranchFreeStep", "Evaluate", "StepMemory"]

Evaluate: TypeAlias = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""From parameters (R, P), β (R) and a batch to terms and quantity (R, n) and gradient (R, P)."""


class StepMemory:
    """All that a step changes, in tensors that stay where they are.

    Args:
        loop: the fit, whose present state they take up.

    Attributes:
        flat: the parameters (R, P): those of the fit themselves.
        gradient: what the last step used, clipped (R, P).
        raw: the same before clipping; of the last step in which a restart went on.
        last_good: the parameters before the last good step of each restart (R, P).
        guard: see :class:`~nfvi.training.guard.Guard`.
        adam: the state of the optimiser.
    """

    def __init__(self, loop: LoopState) -> None:
        self.flat = loop.ensemble.flat
        now = self.flat.detach()
        self.gradient, self.raw = torch.zeros_like(now), torch.zeros_like(now)
        self.last_good = now.clone()
        self.guard = {name: value.clone() for name, value in loop.guard.state_dict().items()}
        self.adam = {
            "step": now.new_zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(now),
            "exp_avg_sq": torch.zeros_like(now),
        }

    @torch.no_grad()
    def load(self, loop: LoopState) -> None:
        """Take up the state of a fit, which the loop may have changed."""
        _copy(self.last_good, loop.last_good)
        for name, value in loop.guard.state_dict().items():
            _copy(self.guard[name], value)
        known = loop.optimizer.state.get(self.flat, {})
        for name, value in self.adam.items():
            if name in known:
                _copy(value, known[name])
            else:  # before the first step, or after one that was taken back
                value.zero_()

    def store(self, loop: LoopState) -> None:
        """Make these tensors the state of a fit."""
        loop.gradient, loop.last_good = self.gradient, self.last_good
        loop.group_gradients = None
        loop.guard.load_state_dict(self.guard)
        loop.optimizer.state[self.flat] = dict(self.adam)
        self.flat.grad = None

    def copies(self) -> list[Tensor]:
        """What :meth:`put_back` takes."""
        return [tensor.clone() for tensor in self.tensors()]

    @torch.no_grad()
    def put_back(self, copies: Sequence[Tensor]) -> None:
        """Undo all that was done since :meth:`copies`."""
        for tensor, before in zip(self.tensors(), copies, strict=True):
            tensor.copy_(before)

    def tensors(self) -> list[Tensor]:
        """All of them, in the order that :meth:`made_of` takes."""
        own = [self.flat.detach(), self.gradient, self.raw, self.last_good]
        return [*own, *self.guard.values(), *self.adam.values()]

    def made_of(self, tensors: Sequence[Tensor]) -> StepMemory:
        """The same of other tensors."""
        other, left = copy.copy(self), iter(tensors)
        other.flat, other.gradient, other.raw, other.last_good = islice(left, 4)
        other.guard = dict(zip(self.guard, islice(left, len(self.guard)), strict=True))
        other.adam = dict(zip(self.adam, left, strict=True))
        return other


class BranchFreeStep:
    """One step of a fit, done by calling it; what it is about lies in buffers.

    Args:
        loop: the fit, with the default Adam.
        evaluate: terms, quantity and gradient.
        batch: what a step is evaluated on, in tensors to put other batches into.
        rows: the longest chunk.

    Attributes:
        memory: what it changes.
        tables: what it reads and records.
        terms: the shape (R, n) of the terms of a step.
    """

    def __init__(self, loop: LoopState, evaluate: Evaluate, batch: Any, rows: int) -> None:
        self.memory = StepMemory(loop)
        flat = self.memory.flat.detach()
        self._evaluate = evaluate
        self._batch = [*loop.objective.tensors(batch)]
        self._quantity, self._fields = loop.history.quantity, loop.history.fields
        group = loop.optimizer.param_groups[0]
        self._adam = {name: group[name] for name in ("eps", "weight_decay")}
        self._adam["beta1"], self._adam["beta2"] = group["betas"]
        terms, quantity, _ = evaluate(flat, flat.new_ones(len(flat)), *self._batch)
        self.terms = terms.shape
        self._fused = True
        dtype = torch.promote_types(torch.promote_types(terms.dtype, quantity.dtype), flat.dtype)
        self.tables = ChunkTables(rows, len(self._fields), flat, dtype)

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Put the tensors of another batch into the place of the last one.

        Raises:
            ValueError: they are of other shapes.
        """
        for buffer, tensor in zip(self._batch, tensors, strict=True):
            if buffer.shape != tensor.shape:
                raise ValueError(
                    f"a batch of shape {tuple(tensor.shape)} after {tuple(buffer.shape)}"
                )
            buffer.copy_(tensor)

    def tensors(self) -> list[Tensor]:
        """All that the step reads and writes."""
        return [*self.memory.tensors(), *self.tables.tensors(), *self._batch]

    def on(self, tensors: Sequence[Tensor]) -> None:
        """Do the step on other tensors than its own, in the order of :meth:`tensors`.

        Adam is written out, for a compiler to join it with what is around it: the same to rounding.
        """
        other, left = copy.copy(self), iter(tensors)
        other.memory = self.memory.made_of([*islice(left, len(self.memory.tensors()))])
        other.tables = self.tables.made_of([*islice(left, len(self.tables.tensors()))])
        other._batch, other._fused = [*left], False
        other()

    def __call__(self) -> None:
        """Do the step."""
        lr, beta = self.tables.now()
        terms, quantity, gradient = self._evaluate(self.memory.flat.detach(), beta, *self._batch)
        with torch.no_grad():
            loss = terms.mean(1)
            good, norm = self._guarded(loss, gradient)
            (self._update if self._fused else self._update_written_out)(good, lr)
            self._take_back(good)
            values = {"loss": loss, "grad_norm": norm, "beta": beta}
            values |= mean_and_error(self._quantity, quantity)
            row = torch.stack([values[name] for name in self._fields])
            self.tables.write(row, self.memory.guard["alive"].any())

    def _guarded(self, loss: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """What :class:`~nfvi.training.guard.Guard` does."""
        memory, guard = self.memory, self.memory.guard
        alive = guard["alive"]
        memory.raw.copy_(torch.where(alive.any(), gradient, memory.raw))
        norm = torch.linalg.vector_norm(memory.raw, dim=1)
        good = torch.isfinite(norm) & torch.isfinite(loss) & alive
        limit = limits(guard["mean_square"], guard["weight"])
        mask = good.unsqueeze(1)
        scaled = gradient * factors(norm, limit).unsqueeze(1)
        memory.gradient.copy_(torch.where(mask, scaled, 0.0))
        bad = alive & ~good
        guard["skipped"].add_(bad)
        guard["in_a_row"].copy_(torch.where(bad, guard["in_a_row"] + 1, 0))
        alive.logical_and_(guard["in_a_row"] < PATIENCE)
        clipped = torch.minimum(norm, limit)
        found = remembered(guard["mean_square"], guard["weight"], clipped, good)
        guard["mean_square"].copy_(found[0])
        guard["weight"].copy_(found[1])
        memory.last_good.copy_(torch.where(mask, memory.flat.detach(), memory.last_good))
        return good, norm

    def _update(self, good: Tensor, lr: Tensor) -> None:
        """A step of Adam, which restarts that must not step do not take part in."""
        flat, state = self.memory.flat.detach(), self.memory.adam
        before = [(x, x.clone()) for x in (flat, *state.values())]
        adam(
            [flat],
            [self.memory.gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,
            capturable=flat.is_cuda,
            amsgrad=False,
            maximize=False,
            lr=lr,
            **self._adam,
        )
        mask, some = good.unsqueeze(1), good.any()
        for now, old in before:
            now.copy_(torch.where(mask if now.dim() else some, now, old))

    def _update_written_out(self, good: Tensor, lr: Tensor) -> None:
        flat, state, own = self.memory.flat.detach(), self.memory.adam, self._adam
        gradient = self.memory.gradient + own["weight_decay"] * flat
        first, second = own["beta1"], own["beta2"]
        step = state["step"] + good.any()
        mean = torch.lerp(gradient, state["exp_avg"], first)
        square = second * state["exp_avg_sq"] + (1 - second) * gradient * gradient
        length = (square / (1 - second**step)).sqrt() + own["eps"]
        moved = flat - (lr / (1 - first**step)).to(flat.dtype) * mean / length.to(flat.dtype)
        mask = good.unsqueeze(1)
        now = {"exp_avg": mean, "exp_avg_sq": square}
        for name, value in now.items():
            state[name].copy_(torch.where(mask, value, state[name]))
        state["step"].copy_(step)
        flat.copy_(torch.where(mask, moved, flat))

    def _take_back(self, good: Tensor) -> None:
        """Undo a step that left the range of floats; the optimiser begins anew."""
        flat, every = self.memory.flat.detach(), good.all()
        left = ~flat.isfinite().all(1) & every
        flat.copy_(torch.where(left.unsqueeze(1), self.memory.last_good, flat))
        self.memory.guard["skipped"].add_(left)
        for value in self.memory.adam.values():
            value.copy_(torch.where(left.any(), 0.0, value))


def _copy(buffer: Tensor, value: Tensor) -> None:
    if buffer is not value:
        buffer.copy_(value)
