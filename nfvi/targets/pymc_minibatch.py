"""Where a PyMC model takes its data from ``pm.Minibatch``, and its graphs with other rows there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import agree

__all__ = [
    "Minibatch",
    "OfRows",
    "all_rows_model",
    "at_rows",
    "check_sum_over_rows",
    "find_minibatch",
    "scaled_caveats",
    "unscaled",
]

CHECKS = 3
"""Pairs of batches. Of few rows, one pair may add up by chance."""


@dataclass(frozen=True)
class Minibatch:
    """The one call of ``pm.Minibatch`` of a model.

    Attributes:
        rng: the generator of its rows, by which copies of it in a graph are known.
        rows: N, of its data.
        batch_size: B, which it takes.
    """

    rng: Any
    rows: int
    batch_size: int


@dataclass(frozen=True)
class OfRows:
    """The estimate of log p that a model with ``pm.Minibatch`` makes of some rows.

    Attributes:
        log_p: the graph, of z and ``index``.
        index: the numbers of the rows (B,), which PyMC would draw.
        rows: N, of which there are so many in all.
        work: numbers that it writes for one point.
    """

    log_p: Any
    index: Any
    rows: int
    work: float

    @property
    def batch_size(self) -> int:
        """B."""
        return int(self.index.type.shape[0])


def find_minibatch(model: Any, name: str) -> Minibatch | None:
    """Where a model takes its data from ``pm.Minibatch``; ``None`` where it does not.

    Args:
        model: a ``pm.Model``.
        name: what messages call it.

    Raises:
        TargetError: it has several, one that is in more than the likelihood of observed variables
            with ``total_size=``, or one that takes more rows than there are.
    """
    values = [model.rvs_to_values[rv] for rv in model.observed_RVs]
    nodes = [*_nodes([*model.basic_RVs, *model.potentials, *values])]
    if not nodes:
        return None
    if any(node.inputs[-1] is not nodes[0].inputs[-1] for node in nodes):
        raise TargetError(
            f"{name!r} calls pm.Minibatch more than once, so that rows are drawn apart from each"
            " other; give all arrays to one call, as X_rows, y_rows = pm.Minibatch(X, y,"
            " batch_size=500)"
        )
    _check_uses(model, name)
    rows, batch_size = _length(nodes[0].inputs[0]), _length(nodes[0].outputs[0])
    if batch_size > rows:
        raise TargetError(
            f"{name!r} takes {batch_size} rows of {rows} by pm.Minibatch; give batch_size= a number"
            " of at most that of all rows"
        )
    return Minibatch(nodes[0].inputs[-1], rows, batch_size)


def at_rows(log_p: Any, minibatch: Minibatch) -> tuple[Any, Any]:
    """A graph with rows by their numbers in place of those that PyMC draws.

    Returns:
        The graph, and the vector (B,) of the numbers.
    """
    import pytensor.tensor as pt
    from pytensor.graph.replace import clone_replace

    index = pt.vector("rows", shape=(minibatch.batch_size,), dtype="int64")
    taken = {
        out: data[index]
        for node in _nodes([log_p])
        for data, out in zip(node.inputs[:-1], node.outputs[:-1], strict=True)
    }
    return clone_replace(log_p, taken, rebuild_strict=False), index


def unscaled(rv: Any, term: Any) -> Any:
    """The log-likelihood of each observation, without the factor that ``total_size=`` is for."""
    from pymc.variational.minibatch_rv import MinibatchRandomVariable, get_scaling

    if not isinstance(rv.owner.op, MinibatchRandomVariable):
        return term
    _, *total_size = rv.owner.inputs
    return term / get_scaling(total_size, term.shape)


def scaled_caveats(model: Any) -> Iterator[str]:
    """Why the integral is no evidence: likelihoods that ``total_size=`` scales beyond all rows.

    Args:
        model: with all rows.
    """
    from pymc.variational.minibatch_rv import MinibatchRandomVariable, get_scaling

    for rv in dict.fromkeys(model.observed_RVs):
        if isinstance(rv.owner.op, MinibatchRandomVariable):
            _, *total_size = rv.owner.inputs
            shape = model.rvs_to_values[rv].shape
            factor = float(get_scaling(total_size, shape).eval(mode="FAST_COMPILE"))
            if abs(factor - 1) > 1e-9:
                yield (
                    f"total_size= scales the log-likelihood of {rv.name} by {factor:g}, so that Z"
                    " is no evidence of its data"
                )


def all_rows_model(model: Any, name: str) -> Any:
    """The model with all rows in place of those that ``pm.Minibatch`` draws.

    Its initial point is not that of the model.

    Raises:
        TargetError: PyMC does not copy it.
    """
    from pymc.model.transform.basic import remove_minibatched_nodes

    # PyMC copies no initial values.
    bare = object.__new__(type(model))
    vars(bare).update(vars(model))
    bare.rvs_to_initial_values = dict.fromkeys(model.rvs_to_initial_values)
    try:
        return remove_minibatched_nodes(bare)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise TargetError(
            f"{name!r} takes its data from pm.Minibatch, and PyMC makes no copy of it with all"
            f" rows: {type(error).__name__}: {error}. Give it all rows itself, without pm.Minibatch"
        ) from error


def check_sum_over_rows(
    log_p: Callable[[np.ndarray], Tensor], rows: int, batch_size: int, name: str
) -> None:
    """Check that log p is a sum over the rows, by rows that change places, and batches.

    Args:
        log_p: of the rows of these numbers (B,).
        rows: N.
        batch_size: B.
        name: of the model.

    Raises:
        TargetError: it is none.
    """
    generator = np.random.default_rng(0)
    if all(_adds_up(log_p, generator.permutation(rows), batch_size) for _ in range(CHECKS)):
        return
    raise TargetError(
        f"{name!r} takes its data from pm.Minibatch, and its log-density is no sum over rows: that"
        " of a batch depends on their order, or on which are in it together. Give it all rows,"
        " without pm.Minibatch and total_size="
    )


def _adds_up(log_p: Callable[[np.ndarray], Tensor], order: np.ndarray, batch_size: int) -> bool:
    """Whether the sum stays as it is where rows of two batches change places, and their order."""
    half = batch_size // 2
    first, second = order[:batch_size], order[-batch_size:]
    batches = [first, second, first[::-1].copy()]
    for one, other in ((first, second), (second, first)):
        batches.append(np.concatenate([one[:half], other[half:]]))
    value = [log_p(batch) for batch in batches]
    return agree(value[0], value[2]) and agree(value[0] + value[1], value[3] + value[4])


def _check_uses(model: Any, name: str) -> None:
    from pymc.variational.minibatch_rv import MinibatchRandomVariable

    for var in (*model.free_RVs, *model.potentials):
        if any(_nodes([var])):
            raise TargetError(
                f"{name!r}: {var.name} depends on the rows of pm.Minibatch, and nothing scales it"
                " up to all rows. Use them in observed variables with total_size= alone; a"
                " likelihood of your own is a pm.CustomDist with observed="
            )
    for rv in model.observed_RVs:
        taken = any(_nodes([rv, model.rvs_to_values[rv]]))
        if taken and not isinstance(rv.owner.op, MinibatchRandomVariable):
            raise TargetError(
                f"{name!r}: the observed variable {rv.name} has the rows of pm.Minibatch and no"
                " total_size=, so that its log-likelihood is that of one batch; give it"
                " total_size=N, the number of all rows"
            )


def _nodes(graphs: Sequence[Any]) -> Iterator[Any]:
    """The nodes of ``pm.Minibatch`` that graphs depend on."""
    from pymc.data import MinibatchOp
    from pytensor.graph.traversal import ancestors

    seen = {x.owner: None for x in ancestors(list(graphs)) if x.owner is not None}
    return (node for node in seen if isinstance(node.op, MinibatchOp))


def _length(data: Any) -> int:
    known = data.type.shape[0]
    return int(data.shape[0].eval(mode="FAST_COMPILE") if known is None else known)
