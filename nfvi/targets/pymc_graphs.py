"""A PyMC model as graphs of PyTensor: log-density and variables over one flat vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS
from nfvi.targets.pymc_minibatch import (
    Minibatch,
    OfRows,
    all_rows_model,
    at_rows,
    find_minibatch,
    scaled_caveats,
    unscaled,
)

__all__ = [
    "Facts",
    "Graphs",
    "draw_prior",
    "is_pymc_model",
    "read_facts",
    "read_graphs",
]


@dataclass(frozen=True)
class Graphs:
    """What a model says of one point, as it was when it was read.

    Attributes:
        z: the flat vector (d,) of all free variables on their unconstrained scale, in order.
        log_p: log-density with the Jacobians of the transforms, a scalar.
        shown: name -> free variable or deterministic, in the order of ``pm.sample``.
        likelihood: name -> log-likelihood of each observation of an observed variable.
        start: PyMC's own initial point (d,).
        places: name of a free variable -> where it is in z.
        work: numbers that log p writes for one point, as far as PyTensor knows their shapes.
        of_rows: log p with the data of some rows alone; ``None`` without ``pm.Minibatch``.
    """

    z: Any
    log_p: Any
    shown: Mapping[str, Any]
    likelihood: Mapping[str, Any]
    start: np.ndarray
    places: Mapping[str, slice]
    work: float
    of_rows: OfRows | None


@dataclass(frozen=True)
class Facts:
    """What a model knows of its arrays: names of dimensions, labels along them, and data.

    ``caveats`` says why its integral is no evidence.
    """

    dims: Mapping[str, Sequence[str]]
    coords: Mapping[str, Sequence[Any]]
    observed_data: Mapping[str, np.ndarray]
    constant_data: Mapping[str, np.ndarray]
    caveats: tuple[str, ...]


def is_pymc_model(value: Any) -> bool:
    """Whether this is a ``pm.Model``, told without importing PyMC."""
    return any(
        kind.__name__ in {"Model", "BaseModel"} and kind.__module__.startswith("pymc.model")
        for kind in type(value).__mro__
    )


def read_graphs(model: Any, name: str) -> Graphs:
    """The graphs of a model, with its data, lengths and coordinates as they are now.

    Where it takes its data from ``pm.Minibatch``, they are of all rows.

    Args:
        model: a ``pm.Model``.
        name: what messages call it.

    Raises:
        TargetError: it has no free variables, discrete ones, or draws random numbers.
    """
    from pymc.pytensorf import join_nonshared_inputs
    from pymc.util import is_transformed_name

    _check_free(model, name)
    start, minibatch = model.initial_point(random_seed=0), find_minibatch(model, name)
    whole = model if minibatch is None else all_rows_model(model, name)
    free = [*model.free_RVs]
    values = [start[model.rvs_to_values[rv].name] for rv in free]
    shown = [v for v in whole.unobserved_value_vars if not is_transformed_name(v.name)]
    log_p = _joint(whole) if minibatch is None else _joint_of_all(whole, name)
    _check_random(log_p, name)
    shown = [v for v in shown if not _is_random(v)]
    observed = [*dict.fromkeys(whole.observed_RVs)]
    terms = whole.logp(observed, sum=False) if observed else []
    terms = [unscaled(rv, term) for rv, term in zip(observed, terms, strict=True)]
    inputs = [whole.rvs_to_values[whole[rv.name]] for rv in free]
    graphs, joined = join_nonshared_inputs(start, [log_p, *terms, *shown], inputs)
    flat = np.concatenate([np.ravel(value) for value in values])
    frozen, z = _frozen(graphs, joined, len(flat))
    log_p, *terms = (_with_bounds(g, [z], model.check_bounds) for g in frozen[: len(terms) + 1])
    ends = np.cumsum([np.size(value) for value in values]).tolist()
    return Graphs(
        z=z,
        log_p=log_p,
        shown={v.name: g for v, g in zip(shown, frozen[len(terms) + 1 :], strict=True)},
        likelihood={rv.name: term for rv, term in zip(observed, terms, strict=True)},
        start=flat.astype(z.dtype),
        places={
            rv.name: slice(end - np.size(value), end)
            for rv, value, end in zip(free, values, ends, strict=True)
        },
        work=_work([z], log_p),
        of_rows=None if minibatch is None else _of_rows(model, minibatch, start, z),
    )


def _joint(model: Any) -> Any:
    # By name each once: pm.sample_posterior_predictive leaves a model with a variable twice.
    return model.logp([*dict.fromkeys([*model.basic_RVs, *model.potentials])])


def _joint_of_all(model: Any, name: str) -> Any:
    try:
        return _joint(model)
    except USER_ERRORS as error:
        raise TargetError(
            f"{name!r} takes its data from pm.Minibatch, and its log-density cannot be written for"
            f" all rows: {type(error).__name__}: {error}. Is a variable as long as a batch? Its"
            " values would be of other rows in each step; leave pm.Minibatch out then"
        ) from error


def _of_rows(model: Any, minibatch: Minibatch, start: Mapping[str, Any], z: Any) -> OfRows:
    """The estimate of log p by rows, with its numbers in one vector as those of all rows are."""
    from pymc.pytensorf import join_nonshared_inputs
    from pytensor.graph.replace import clone_replace

    log_p, index = at_rows(_joint(model), minibatch)
    inputs = [model.rvs_to_values[rv] for rv in model.free_RVs]
    graphs, joined = join_nonshared_inputs(start, [log_p], inputs)
    (frozen,), own = _frozen(graphs, joined, z.type.shape[0])
    found = clone_replace(_with_bounds(frozen, [own, index], model.check_bounds), {own: z})
    return OfRows(found, index, minibatch.rows, _work([z, index], found))


def read_facts(model: Any, name: str) -> Facts:
    """Dimensions, coordinates and data, as ``pm.sample`` hands them to ArviZ; of all rows."""
    from pymc.backends import arviz

    if find_minibatch(model, name) is not None:
        model = all_rows_model(model, name)

    coords, dims = arviz.coords_and_dims_for_inferencedata(model)
    return Facts(
        dims={name: tuple(own) for name, own in dims.items()},
        coords={name: tuple(labels) for name, labels in coords.items()},
        observed_data={n: np.array(x) for n, x in arviz.find_observations(model).items()},
        constant_data={n: np.array(x) for n, x in arviz.find_constants(model).items()},
        caveats=tuple(_caveats(model)),
    )


def draw_prior(model: Any, n: int, seed: int) -> np.ndarray | None:
    """n draws (n, d) of the prior on the unconstrained scale; ``None`` where it has none."""
    import pymc

    parts = []
    for rv in model.free_RVs:
        transform = model.rvs_to_transforms[rv]
        parts.append(rv if transform is None else transform.forward(rv, *rv.owner.inputs))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = pymc.draw(parts, draws=n, random_seed=seed, mode="FAST_COMPILE")
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
        return None  # pm.Flat, and what cannot be drawn or is drawn on an edge
    return np.concatenate([np.reshape(x, (n, -1)) for x in draws], axis=1)


def _caveats(model: Any) -> Iterator[str]:
    """Why the integral of the density is not the evidence of the data."""
    flat = [rv.name for rv in model.free_RVs if "Flat" in type(rv.owner.op).__name__]
    transforms = {rv.name: model.rvs_to_transforms[rv] for rv in model.free_RVs}
    ordered = [name for name, own in transforms.items() if "Ordered" in type(own).__name__]
    if flat:
        yield f"{', '.join(flat)} has no proper prior (pm.Flat), so that Z is no evidence"
    if ordered:
        yield (
            f"{', '.join(ordered)} is ordered by its transform, for which PyMC does not normalise"
            " the prior: Z is too small, by k! for k draws from one prior"
        )
    yield from scaled_caveats(model)
    if model.potentials:
        names = ", ".join(potential.name for potential in model.potentials)
        yield f"pm.Potential {names} is in the density as it is, normalised or not"
    elif not model.observed_RVs:
        yield "the model has no data, so that Z is 1 whatever its fit says"


def _check_free(model: Any, name: str) -> None:
    if not model.free_RVs:
        raise TargetError(f"{name!r} has no free random variable, so there is nothing to infer")
    discrete = [rv.name for rv in model.free_RVs if not rv.dtype.startswith("float")]
    if discrete:
        raise TargetError(
            f"{name!r} has discrete free variables, {', '.join(discrete)}; a flow is a density of"
            " real numbers. Sum them out first, for instance by"
            f" pymc_extras.marginalize(model, {discrete!r}), or write the mixture with pm.Mixture"
        )


def _check_random(log_p: Any, name: str) -> None:
    if not _is_random(log_p):
        return
    raise TargetError(
        f"the log-density of {name!r} draws random numbers, so that it is another one at each call;"
        " draw these before, and pass them as pm.Data"
    )


def _is_random(graph: Any) -> bool:
    from pytensor.graph.traversal import graph_inputs
    from pytensor.tensor.random.type import RandomType

    return any(isinstance(x.type, RandomType) for x in graph_inputs([graph]))


def _frozen(graphs: Sequence[Any], joined: Any, dim: int) -> tuple[list[Any], Any]:
    """The graphs over a vector of known length, with shared variables as constants."""
    import pytensor.tensor as pt
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.replace import clone_replace
    from pytensor.graph.traversal import graph_inputs

    z = pt.vector("z", shape=(dim,), dtype=joined.dtype)
    shared = [x for x in graph_inputs(graphs) if isinstance(x, SharedVariable)]
    fixed = {x: pt.constant(x.get_value(borrow=False), name=x.name) for x in shared}
    return clone_replace(graphs, {joined: z, **fixed}, rebuild_strict=False), z


def _with_bounds(log_p: Any, inputs: Sequence[Any], check: bool) -> Any:
    """log p that is −∞ at parameters out of their range, as PyMC compiles it, for each point alone.

    In a graph over a batch one bad point would make all of it −∞.
    """
    from pymc.logprob.utils import CheckParameterValue, local_check_parameter_to_ninf_switch
    from pytensor.graph.fg import FunctionGraph
    from pytensor.graph.replace import clone_replace

    graph = FunctionGraph(list(inputs), [log_p], clone=True)
    for node in graph.toposort():
        if isinstance(node.op, CheckParameterValue):
            found = (
                local_check_parameter_to_ninf_switch.transform(graph, node)
                if check
                else [node.inputs[0]]
            )
            if found:
                graph.replace(node.outputs[0], found[0], import_missing=True)
    return clone_replace(graph.outputs[0], dict(zip(graph.inputs, inputs, strict=True)))


def _work(inputs: Sequence[Any], log_p: Any) -> float:
    from pytensor.graph.fg import FunctionGraph

    written = 0
    for node in FunctionGraph(list(inputs), [log_p], clone=True).toposort():
        for out in node.outputs:
            written += math.prod(size or 1 for size in getattr(out.type, "shape", ()))
    return float(written)
