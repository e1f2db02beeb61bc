"""Data drawn from a PyMC model, by PyMC."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, shape_text
from nfvi.targets.pymc_containers import Containers, NewData, is_shared
from nfvi.utils import quiet_log, to_inference_data

__all__ = ["advice_on_lengths", "check_followed", "draw_data"]

logger = logging.getLogger(__name__)

Values = Mapping[str, np.ndarray]
FOLLOW = (
    "pass every pm.Data of the old length by data=, those with data of an observed variable too,"
    " and let observed variables follow: pm.Normal('y', mu, 1, observed=y, shape=mu.shape), or"
    " dims="
)
"""What to do where lengths do not fit."""


def draw_data(
    model: Any,
    free: Values,
    seed: int,
    dims: Mapping[str, Sequence[str]],
    held: NewData,
    *,
    everything: bool,
) -> dict[str, np.ndarray]:
    r"""The observed variables drawn at values (n, \*shape) of the free ones: (n, \*shape).

    A free variable whose prior reads what has changed is drawn from that prior, as PyMC does.

    Args:
        model: whose containers hold what is in ``held``.
        free: free variable -> its values.
        seed: of the draws.
        dims: variable -> names of its dimensions.
        held: what the containers hold.
        everything: whether deterministics, and free variables that are drawn, are returned too.
    """
    import pymc

    anew = [rv.name for rv in model.free_RVs if _reads(rv, held.changed)]
    if anew:
        logger.info("%s: drawn from the prior, as it reads new data or labels", ", ".join(anew))
    names = [rv.name for rv in dict.fromkeys(model.observed_RVs)]
    if everything:
        names += [*anew, *(variable.name for variable in model.deterministics)]
    rows = len(next(iter(free.values())))
    kept = {name: x[None] for name, x in free.items() if name not in anew}
    # PyMC draws a free variable anew whose coordinates or data it does not find as they are.
    trace = to_inference_data(
        {"nfvi_draw": np.zeros((1, rows)), **kept},
        constant_data=held.after.values,
        dims=dims,
        coords={dim: own for dim, own in held.after.labels.items() if own is not None},
    )
    # PyMC logs the names of what it draws.
    with warnings.catch_warnings(), quiet_log("pymc.sampling.forward", logging.INFO):
        warnings.simplefilter("ignore")
        found = pymc.sample_posterior_predictive(
            trace,
            model=model,
            var_names=names,
            random_seed=seed,
            progressbar=False,
            return_inferencedata=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )
    return {name: np.array(x)[0] for name, x in found.items()}


@contextmanager
def advice_on_lengths(name: str) -> Iterator[None]:
    """What a model raises with new data is a TargetError that says how lengths are to fit."""
    try:
        yield
    except TargetError:
        raise
    except USER_ERRORS as error:
        said = str(error).partition("\n")[0]
        raise TargetError(
            f"{name!r} raised {type(error).__name__} with the new data: {said}; {FOLLOW}"
        ) from error


def check_followed(
    model: Any, before: Containers, held: NewData, found: Values, fitted: Values
) -> None:
    """Refuse data of the old length where a container has a new one.

    Args:
        model: the model.
        before: what it was fitted with.
        held: what data were drawn with.
        found: the data that were drawn, by name.
        fitted: the data of the fit, by name.

    Raises:
        TargetError: an observed variable kept its length.
    """
    for rv in (rv for rv in dict.fromkeys(model.observed_RVs) if rv.name in fitted):
        shape = found[rv.name].shape[1:]
        for name, value in held.after.values.items():
            gone = set(before.values[name].shape) - set(value.shape)
            if gone & set(shape) and shape == fitted[rv.name].shape and _reads(rv, {name}):
                raise TargetError(
                    f"{rv.name} kept its shape {shape_text(shape)}, while {name!r} has"
                    f" {shape_text(value.shape)} now; {FOLLOW}"
                )


def _reads(variable: Any, names: Collection[str]) -> bool:
    """Whether a variable depends on a container or the length of a dimension of these names."""
    from pytensor.graph.traversal import ancestors

    return any(x.name in names for x in ancestors([variable]) if is_shared(x))
