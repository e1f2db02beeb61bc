"""From the arguments of a fit to a trainer that is ready to run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from nfvi.errors import FitError
from nfvi.guides import AnyGuide, Guide, header_of_guide, parts
from nfvi.targets import Target
from nfvi.training.captured import stepper
from nfvi.training.controls import Growth, Plateau, Pruning, open_ended
from nfvi.training.defaults import default_learning_rate
from nfvi.training.ensemble import Ensemble
from nfvi.training.history import History
from nfvi.training.loop import Trainer
from nfvi.training.loop_state import Control
from nfvi.training.minibatch import MinibatchKL, reverse_kl
from nfvi.training.natural_gradient import NaturalGradient
from nfvi.training.noise import SobolNoise
from nfvi.training.objectives import ReverseKL
from nfvi.training.optimizers import OptimizerSpec, make_optimizer
from nfvi.training.schedule import LearningRate, Tempering
from nfvi.training.step import Compile, TracedStep, check_compile
from nfvi.training.tempering import AdaptiveTempering
from nfvi.utils import check_flag, check_positive, check_whole

__all__ = [
    "Plan",
    "build_trainer",
    "trainer_of_guide",
]

# What ``anneal`` is a fraction of in a fit that ends by itself.
NOMINAL_STEPS = 2_500
# A fit that continues from a guide alone changes nothing while it runs.
FLAGS = ("open_ended", "growing", "prune", "adaptive")
FIXED: dict[str, Any] = {**dict.fromkeys(FLAGS, False), "held": 0}


@dataclass(frozen=True)
class Plan:
    """The arguments of a fit after checks and defaults; JSON-able, and kept in checkpoints.

    Attributes:
        steps: optimiser steps.
        n_mc: draws a step for each restart.
        lengths: steps for which each restart is tempered.
        gradient: ``"path"`` or ``"total"``.
        lr: learning rate at the top of the schedule, or ``None`` for the optimiser's own.
        seed: of everything random.
        draws: ``"iid"`` or ``"qmc"``.
        held: steps, the warm-up included, before the learning rate decays.
        open_ended: whether the fit may end before ``steps``, by a
            :class:`~nfvi.training.controls.Plateau`.
        growing: whether ``n_mc`` is where a :class:`~nfvi.training.controls.Growth` starts.
        adaptive: whether ``lengths`` are the most that an
            :class:`~nfvi.training.tempering.AdaptiveTempering` takes.
        prune: whether restarts that fall behind are given up, see
            :class:`~nfvi.training.controls.Pruning`.
        combine: ``"best"`` or ``"mixture"``: what becomes of the restarts, see
            :func:`~nfvi.fit.combine.outcome`.
        compile: ``"trace"``, ``"inductor"`` or ``False``: whether steps may be run as a graph.
    """

    steps: int
    n_mc: int
    lengths: tuple[int, ...]
    gradient: Literal["path", "total"]
    lr: float | None
    seed: int
    draws: Literal["iid", "qmc"] = "iid"
    held: int = 0
    open_ended: bool = False
    growing: bool = False
    prune: bool = False
    adaptive: bool = False
    combine: Literal["best", "mixture"] = "best"
    compile: Compile = "trace"

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 1)
        check_whole("n_mc", self.n_mc, 2)
        check_whole("held", self.held, 0, self.steps - 1)
        if self.lr is not None:
            check_positive("lr", self.lr)
        check_flag("prune", self.prune)
        check_compile(self.compile)
        if self.combine not in ("best", "mixture"):
            raise ValueError(f'combine must be "best" or "mixture", got {self.combine!r}')
        if self.combine == "mixture" and self.prune:
            raise ValueError(
                'prune=True gives up restarts in lesser modes, which combine="mixture" is to keep:'
                " leave one of them out"
            )
        if self.gradient not in ("path", "total"):
            raise ValueError(f'gradient must be "path" or "total", got {self.gradient!r}')
        if self.draws not in ("iid", "qmc"):
            raise ValueError(f'draws must be "iid" or "qmc", got {self.draws!r}')

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, for a JSON header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan that :meth:`as_dict` wrote, among other values."""
        chosen = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**{**chosen, "lengths": tuple(chosen["lengths"])})


def build_trainer(
    make_guide: Callable[[torch.Generator], Guide],
    target: Target,
    plan: Plan,
    optimizer: OptimizerSpec,
    settings: dict[str, Any],
) -> Trainer:
    """A trainer at step 0, with every random choice fixed by ``plan.seed``.

    Args:
        make_guide: a new guide that starts from the given generator.
        target: the log-density.
        plan: the arguments.
        optimizer: as for ``NFVI.fit``.
        settings: JSON-able values kept in checkpoints beside the plan.

    Raises:
        ValueError: the optimiser is not for such a fit.
    """
    start = torch.Generator().manual_seed(plan.seed)
    ensemble = Ensemble([make_guide(start) for _ in plan.lengths])
    # A second stream, so that the noise of step 1 does not depend on how guides are started.
    noise = torch.Generator(ensemble.flat.device)
    noise.manual_seed(int(torch.randint(2**62, (), generator=start)))
    made = make_optimizer(optimizer, ensemble.flat, plan.lr)
    if plan.growing and isinstance(made, NaturalGradient):
        raise ValueError('n_mc="auto" beside optimizer=NaturalGradient: give n_mc= a number')
    objective = _objective(ensemble, target, plan)
    return Trainer(
        ensemble,
        objective,
        made,
        open_ended(plan.steps) if plan.open_ended else LearningRate.over(plan.steps, plan.held),
        AdaptiveTempering(plan.lengths) if plan.adaptive else Tempering(plan.lengths),
        noise,
        {**settings, **plan.as_dict(), "optimizer": type(made).__name__},
        controls=[*_controls(plan, ensemble), *_anchors(objective)],
        traced=_traced(ensemble, target, plan),
    )


def _traced(ensemble: Ensemble, target: Target, plan: Plan) -> TracedStep:
    device = ensemble.flat.device
    otherwise = {
        "the target is evaluated draw by draw": (
            target.batching == "loop" and not target.differentiable_once
        ),
        "the gradient of the target is that of another library": (
            target.differentiable_once and device.type != "cpu"
        ),
        'anneal="adaptive"': plan.adaptive,
        'n_mc="auto" changes the number of draws': plan.growing,
    }
    return stepper(plan.compile, plan.steps, device, otherwise)


def _controls(plan: Plan, ensemble: Ensemble) -> list[Control]:
    """What the plan asks to be changed while the fit runs."""
    controls: list[Control] = [Plateau()] if plan.open_ended else []
    controls += [Growth(ensemble.flat, plan.n_mc, ensemble.dim)] if plan.growing else []
    length = NOMINAL_STEPS if plan.open_ended else plan.steps
    return controls + ([Pruning(length)] if plan.prune else [])


def _anchors(objective: ReverseKL) -> list[Control]:
    """What keeps the anchors of a fit to rows near its guides."""
    return [objective.anchors] if isinstance(objective, MinibatchKL) else []


def _objective(ensemble: Ensemble, target: Target, plan: Plan) -> ReverseKL:
    noise = None
    if plan.draws == "qmc":
        base = ensemble.template.base
        noise = SobolNoise(base, plan.n_mc, target.dim, plan.seed, ensemble.flat)
    return reverse_kl(target, plan.n_mc, plan.gradient, noise, plan.adaptive)


def trainer_of_guide(
    guide: AnyGuide, target: Target, settings: dict[str, Any], history: History
) -> Trainer:
    """A trainer that continues from a fitted guide with a new Adam.

    Args:
        guide: where to start; it is copied. Each component of a mixture becomes a restart.
        target: the log-density.
        settings: those of the fit that made the guide.
        history: its record, with as many restarts; the new steps are added to it.

    Raises:
        FitError: the components of the mixture differ in formula or kind of placement.
    """
    guides = parts(guide)
    if any(header_of_guide(one) != header_of_guide(guides[0]) for one in guides):
        raise FitError(
            "the components of this mixture differ in formula or placement, so that they cannot go"
            " on side by side: refine before saving, or fit again"
        )
    plan = replace(Plan.from_dict({**settings, "lengths": (0,) * len(guides)}), **FIXED)
    if settings["optimizer"] != "Adam":
        # Another optimiser's learning rate is on another scale.
        plan = replace(plan, lr=default_learning_rate(guides[0]))
    ensemble = Ensemble([copy.deepcopy(one).requires_grad_(True) for one in guides])
    # Another stream than that of the first fit, whose place in it is not known.
    noise = torch.Generator(ensemble.flat.device).manual_seed(plan.seed + len(history))
    objective = _objective(ensemble, target, plan)
    trainer = Trainer(
        ensemble,
        objective,
        make_optimizer(None, ensemble.flat, plan.lr),
        LearningRate.over(len(history)),
        Tempering(plan.lengths),
        noise,
        {**settings, **plan.as_dict(), "optimizer": "Adam"},
        controls=_anchors(objective),
        traced=_traced(ensemble, target, plan),
    )
    trainer.history = history
    return trainer
