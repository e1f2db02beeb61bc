"""Defaults of a fit that depend on its guide, its target and its optimiser."""

from __future__ import annotations

from typing import Literal

from nfvi.flows import Flow
from nfvi.guides import Guide
from nfvi.targets import Target, takes_rows
from nfvi.training.anneal import ANNEAL
from nfvi.training.optimizers import LEARNING_RATE, OptimizerSpec, is_natural, row_wise

__all__ = [
    "N_MC",
    "RESTARTS",
    "STEPS",
    "default_anneal",
    "default_draws",
    "default_gradient",
    "default_hold",
    "default_learning_rate",
    "default_n_mc",
    "default_restarts",
    "default_steps",
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
# Of natural gradients: about the time of Adam's defaults (docs/benchmarks.md).
NATURAL_STEPS, NATURAL_N_MC = 200, 512
# Lowered from 25 000: with networks more restarts take several times as long, and `realnvp*6`
# ends at KL 0.004 on pot1 with two (docs/benchmarks.md).
CHEAP_PARAMETERS = 5_000


def default_steps(guide: Guide, optimizer: OptimizerSpec = None) -> int:
    """2 500, or 5 000 with a network, whose learning rate is lower; 200 natural gradients."""
    return NATURAL_STEPS if is_natural(optimizer) else STEPS[has_network(guide)]


def has_network(guide: Guide) -> bool:
    """Whether a flow of the guide wants a lower learning rate, as those with a network do."""
    return default_learning_rate(guide) < LEARNING_RATE


def default_n_mc(dim: int, target: Target | None = None, optimizer: OptimizerSpec = None) -> int:
    """Draws a step for each restart: 256 for up to 10 dimensions, 64 for more or for many rows.

    512 for natural gradients.
    """
    if is_natural(optimizer):
        return NATURAL_N_MC
    return N_MC[dim > FEW_DIMENSIONS or (target is not None and takes_rows(target))]


def default_anneal(guide: Guide) -> float:
    """0.4 of the steps, or 0.6 with a network."""
    return ANNEAL[has_network(guide)]


def default_draws(guide: Guide) -> Literal["iid", "qmc"]:
    """``"qmc"`` for a base that has quantiles, as ours have, in up to 1 000 dimensions."""
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
    if is_natural(optimizer) or parameters > CHEAP_PARAMETERS:
        return 2
    return RESTARTS[target.dim > FEW_DIMENSIONS]
