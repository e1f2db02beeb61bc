"""Log-likelihoods and new data of a NumPyro model at one point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nfvi.errors import TargetError
from nfvi.targets.numpyro_model import (
    SEED,
    NumPyroModel,
    Values,
    copied,
    run_traced,
    with_seed,
)

__all__ = ["draw_of_point", "pointwise", "with_arguments"]


def with_arguments(
    model: NumPyroModel, args: tuple[Any, ...] | None, kwargs: Mapping[str, Any] | None
) -> NumPyroModel:
    """The model with other arguments; ``None`` leaves them as they are."""
    return replace(
        model,
        args=model.args if args is None else args,
        kwargs=model.kwargs if kwargs is None else kwargs,
    )


def pointwise(model: NumPyroModel, z: Any) -> Values:
    """log p(y | x) of each observation at one point z (d,): observed site -> its batch shape.

    Raises:
        TargetError: data are scaled, or discrete sites are summed out.
    """
    from numpyro.handlers import substitute

    _refuse_summed(model)
    values = model.constrained(z)
    seeded = with_seed(model.model, SEED, model.held)
    args, kwargs = copied((model.args, dict(model.kwargs)))
    trace = run_traced(
        substitute(seeded, data={name: values[name] for name in model.sites}), args, kwargs
    )
    return {
        name: _log_prob(name, site)
        for name, site in trace.items()
        if site["type"] == "sample" and site["is_observed"] and not _is_factor(site["fn"])
    }


def draw_of_point(
    fitted: NumPyroModel, model: NumPyroModel, z: Any, key: Any, *, everything: bool
) -> Values:
    """Data drawn at one point z (d,): observed site -> value.

    Args:
        fitted: the model with the arguments that z belongs to.
        model: the same with those that data are drawn with.
        z: the point.
        key: of the random numbers.
        everything: whether deterministic sites are given too.

    Raises:
        TargetError: discrete sites are summed out.
    """
    from numpyro.handlers import substitute

    _refuse_summed(fitted)
    values = fitted.constrained(z)
    seeded = with_seed(_redrawing(model.model), key, model.held)
    args, kwargs = copied((model.args, dict(model.kwargs)))
    latent = {name: values[name] for name in fitted.sites}
    trace = run_traced(substitute(seeded, data=latent), args, kwargs)
    return {
        name: site["value"]
        for name, site in trace.items()
        if name not in latent and _is_drawn(site, everything)
    }


def _redrawing(model: Callable[..., Any]) -> Any:
    """A model that draws its observed sites, in the shape of the data."""
    import jax
    from numpyro.primitives import Messenger

    class Redraw(Messenger):  # type: ignore[misc]
        def process_message(self, msg: dict[str, Any]) -> None:
            if msg["type"] != "sample" or not msg["is_observed"] or _is_factor(msg["fn"]):
                return
            fn, shape = msg["fn"], jax.numpy.shape(msg["value"])
            given = shape[: len(shape) - fn.event_dim]
            batch = jax.numpy.broadcast_shapes(given, fn.batch_shape)
            msg["fn"] = fn if batch == fn.batch_shape else fn.expand(batch)
            msg["value"], msg["is_observed"] = None, False

    return Redraw(model)


def _is_drawn(site: Mapping[str, Any], everything: bool) -> bool:
    if site["type"] == "deterministic":
        return everything
    return site["type"] == "sample" and not site["is_observed"]


def _log_prob(name: str, site: Mapping[str, Any]) -> Any:
    scale = site["scale"]
    # A scale may be traced, and is then taken for one.
    if scale is not None and not (isinstance(scale, float | int) and scale == 1):
        raise TargetError(
            f"site {name!r} is scaled, as in a plate with subsample_size=: what is scaled is no"
            " log-likelihood of an observation; leave the scale out"
        )
    return site["fn"].log_prob(site["value"])


def _refuse_summed(model: NumPyroModel) -> None:
    if model.nesting:
        raise TargetError(
            "it has discrete sites that are summed out, by which observations hang together:"
            " neither log-likelihoods nor predictions are available for such a NumPyro model"
        )


def _is_factor(fn: Any) -> bool:
    from numpyro.distributions import Unit

    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, Unit)
