"""From the arguments of a fit to a trainer that is ready to run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from nfvi.errors import FitError
from nfvi.flows import Flow
from nfvi.guides import AnyGuide, Guide, header_of_guide, parts
from nfvi.targets import Target, takes_rows
from nfvi.training.anneal import ANNEAL
from nfvi.training.captured import stepper
from nfvi.training.controls import Growth, Plateau, Pruning, open_ended
from nfvi.training.ensemble import Ensemble
from nfvi.training.history import History
from nfvi.training.loop import Trainer
from nfvi.training.loop_state import Control
from nfvi.training.minibatch import MinibatchKL, reverse_kl
from nfvi.training.noise import SobolNoise
from nfvi.training.objectives import ReverseKL
from nfvi.training.optimizers import LEARNING_RATE, OptimizerSpec, make_optimizer, row_wise
from nfvi.training.schedule import LearningRate, Tempering
from nfvi.training.step import Compile, TracedStep, check_compile
from nfvi.training.tempering import AdaptiveTempering
from nfvi.utils import check_flag, check_positive, check_whole

__all__ = [
    "Plan",
    "build_trainer",
    "default_anneal",
    "default_draws",
    "default_gradient",
    "default_hold",
    "default_learning_rate",
    "default_n_mc",
    "default_restarts",
    "default_steps",
    "trainer_of_guide",
]

# Without networks in the formula, and with them. With even draws, and the rate held for HOLD of
# them, 2 500 do what 5 000 of independent draws under a cosine from the start did
# (docs/benchmarks.md); with a network, at a quarter of the rate, `nsf*2` on the banana ends at 0.14
# to 0.19 nats after 2 500. Gaussians need a thousand: `steps="auto"` ends by itself.
STEPS = (2_500, 5_000)
# Of the steps, at the full rate. With a decay from the start `bnaf` on pot2 ends 0.1 nats further
# from its target in the median of three seeds (docs/benchmarks.md). Not with a network: `nsf*2` on
# the banana ended at 0.2 nats with it in four of five fits, and at 0.01 without. Nor where a step
# sees some rows of many, whose noise a longer decay takes away.
HOLD = 0.6
# Not measured: torch's Sobol sets go to 21 201 dimensions, and are even in few of them only.
SOBOL_LIMIT = 1_000
FEW_DIMENSIONS = 10
# For up to 10 dimensions, where draws cost little and modes are lost most easily, and for more.
N_MC = (256, 64)
RESTARTS = (8, 4)
# Lowered from 25 000: with networks more restarts take several times as long, and `realnvp*6`
# ends at KL 0.004 on pot1 with two (docs/benchmarks.md).
CHEAP_PARAMETERS = 5_000
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


def default_steps(guide: Guide) -> int:
    """2 500, or 5 000 with a network, whose learning rate is lower."""
    return STEPS[has_network(guide)]


def has_network(guide: Guide) -> bool:
    """Whether a flow of the guide wants a lower learning rate, as those with a network do."""
    return default_learning_rate(guide) < LEARNING_RATE


def default_n_mc(dim: int, target: Target | None = None) -> int:
    """Draws a step for each restart: 256 for up to 10 dimensions, 64 for more or for many rows."""
    return N_MC[dim > FEW_DIMENSIONS or (target is not None and takes_rows(target))]


def default_anneal(guide: Guide) -> float:
    """0.4 of the steps, or 0.6 with a network."""
    return ANNEAL[has_network(guide)]


def default_draws(guide: Guide) -> Literal["iid", "qmc"]:
    """``"qmc"`` for a base that has quantiles, normal or laplace, in up to 1 000 dimensions."""
    even = guide.dim <= SOBOL_LIMIT and guide.base.has_quantiles
    return "qmc" if even else "iid"


def default_hold(guide: Guide, target: Target) -> float:
    """0.6 of the steps; 0 with a network, or where a step sees some rows of many."""
    return 0.0 if has_network(guide) or takes_rows(target) else HOLD


def default_gradient(guide: Guide) -> Literal["path", "total"]:
    """``"path"``, but ``"total"`` where a flow is not smooth.

    The path gradient holds the derivative of log q by x, and that jumps at the knots of splines:
    fits of ``nsf`` ran off under it.
    """
    flows: list[Flow] = list(guide.flows)  # type: ignore[arg-type]
    return "path" if all(flow.smooth for flow in flows) else "total"


def default_learning_rate(guide: Guide) -> float:
    """The least of those that suit the families in the guide: 0.02, or 0.005 with a network."""
    flows: list[Flow] = list(guide.flows)  # type: ignore[arg-type]
    return min(flow.learning_rate for flow in flows)


def default_restarts(guide: Guide, target: Target, optimizer: OptimizerSpec) -> int:
    """8 for up to 10 dimensions, 4 for more; 2 for many parameters, 1 where more cannot be had.

    One as well for a target of many rows, where restarts would start at the same mode.
    A target that is evaluated draw by draw makes restarts costly, and an optimiser may mix them.
    Two are the least with which one is tempered and one is not: tempering finds the modes of
    pot1, and gets lost in a funnel.
    """
    alone = target.batching == "loop" or takes_rows(target)
    if alone or not row_wise(optimizer):
        return 1
    parameters = sum(p.numel() for p in guide.parameters())
    return RESTARTS[target.dim > FEW_DIMENSIONS] if parameters <= CHEAP_PARAMETERS else 2


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
    """
    start = torch.Generator().manual_seed(plan.seed)
    ensemble = Ensemble([make_guide(start) for _ in plan.lengths])
    # A second stream, so that the noise of step 1 does not depend on how guides are started.
    noise = torch.Generator(ensemble.flat.device)
    noise.manual_seed(int(torch.randint(2**62, (), generator=start)))
    made = make_optimizer(optimizer, ensemble.flat, plan.lr)
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
    otherwise = {
        "the target is evaluated draw by draw": target.batching == "loop",
        "the gradient of the target is that of another library": target.differentiable_once,
        'anneal="adaptive"': plan.adaptive,
        'n_mc="auto" changes the number of draws': plan.growing,
        "prune=True changes the number of restarts": plan.prune,
    }
    return stepper(plan.compile, plan.steps, ensemble.flat.device, otherwise)


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
        plan = replace(plan, lr=None)  # another optimiser's learning rate is on another scale
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
