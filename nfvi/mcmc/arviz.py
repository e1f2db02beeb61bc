"""A run in the groups of ArviZ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nfvi.targets import Target, known_likelihood
from nfvi.utils import dims_for, to_inference_data

__all__ = ["export_run"]


def export_run(
    target: Target,
    draws: Tensor,
    sites: Mapping[str, Tensor],
    stats: Mapping[str, Tensor],
    attrs: Mapping[str, Any],
    log_likelihood: bool,
    predictive_seed: int | None,
) -> Any:
    """Draws of chains for the installed ArviZ.

    Args:
        target: what was sampled.
        draws: (chains, draws, d), on unconstrained space.
        sites: the same by site.
        stats: name -> (chains, draws).
        attrs: what is true of the whole run.
        log_likelihood: whether to add that of each observation, where it is at hand.
        predictive_seed: of new data; ``None`` for none.

    Raises:
        TargetError: with a seed, no data can be drawn from the target.
    """
    z = draws.flatten(0, 1)
    likelihood = known_likelihood(target, z) if log_likelihood else {}
    groups = {"log_likelihood": likelihood}
    if predictive_seed is not None:
        groups["posterior_predictive"] = target.predict(z, seed=predictive_seed)
    return to_inference_data(
        sites,
        stats,
        attrs,
        observed_data=target.observed_data,
        constant_data=target.constant_data,
        dims=dims_for(target.dims, likelihood, tuple(stats)),
        coords=target.coords,
        predictions={
            group: {name: x.unflatten(0, draws.shape[:2]) for name, x in values.items()}
            for group, values in groups.items()
        },
    )
