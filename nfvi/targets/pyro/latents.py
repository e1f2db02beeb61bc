"""Latent sites from the trace of a Pyro model, and the ones that no flow can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform

from nfvi.errors import TargetError
from nfvi.targets.bijections import bare, bijection, same_constraint, support_of
from nfvi.targets.log_space import log_space_density
from nfvi.targets.pyro.handlers import Message, is_discrete, is_latent, is_rounded
from nfvi.targets.sites import Site

__all__ = [
    "feasible_value",
    "latent_sites",
    "prior_value",
    "refuse_changed_sites",
    "site_transform",
]


def feasible_value(site: Message) -> Tensor | None:
    """The image of 0 in a continuous site's support; ``None`` for a discrete site.

    Raises:
        TargetError: no smooth bijection leads from R^k to the support.
    """
    if is_discrete(site):
        return None
    value = _any_value(site)
    transform = site_transform(site)
    if transform is None:
        return torch.zeros_like(value)
    placed: Tensor = transform(value.new_zeros(transform.inverse_shape(value.shape)))
    return placed


def prior_value(site: Message) -> Tensor | None:
    """A draw of a continuous site, where it can be drawn; ``None`` for a discrete site.

    Raises:
        TargetError: no smooth bijection leads from R^k to the support.
    """
    try:
        return None if is_discrete(site) else _draw(site)
    except NotImplementedError:
        return feasible_value(site)


def latent_sites(trace: Any) -> dict[str, Site]:
    """The continuous latent sites of a trace, in the model's order.

    Raises:
        TargetError: a discrete site is not marked for enumeration, or there is no latent site.
    """
    sites: dict[str, Site] = {}
    start = 0
    for name, node in trace.nodes.items():
        if not is_latent(node):
            continue
        if is_discrete(node):
            _refuse_unmarked(node)
            continue
        site = _site(name, node, start)
        sites[name] = site
        start = site.stop
    if not sites:
        raise TargetError(
            "the model has no continuous latent site, so there is nothing to infer; a Pyro model "
            "needs at least one pyro.sample without obs=, and a log-density needs dim="
        )
    return sites


def refuse_changed_sites(first: Any, second: Any, sites: Mapping[str, Site]) -> None:
    """Compare two runs of a model with different values; names, shapes and supports must agree.

    Raises:
        TargetError: they do not.
    """
    later = [name for name, node in second.nodes.items() if is_latent(node)]
    earlier = [name for name, node in first.nodes.items() if is_latent(node)]
    if earlier != later:
        raise TargetError(
            f"the latent sites change with their values: {', '.join(earlier)} in one run, "
            f"{', '.join(later)} in another; the sites must be the same in every run"
        )
    for name, site in sites.items():
        before, fn = first.nodes[name]["fn"], second.nodes[name]["fn"]
        if (before.batch_shape, before.event_shape) != (fn.batch_shape, fn.event_shape):
            raise TargetError(
                f"site {name!r} has shape {tuple(site.shape)} in one run and another shape in the "
                "next; it must stay the same"
            )
        if not same_constraint(support_of(before), support_of(fn)):
            raise TargetError(
                f"the support of site {name!r} depends on other latent sites; draw it on a fixed "
                "support and move it, as in u ~ Uniform(0, 1) and "
                f"{name} = pyro.deterministic({name!r}, low + (high - low) * u)"
            )


def _site(name: str, node: Message, start: int) -> Site:
    transform = site_transform(node)
    value = node["value"]
    if not value.is_floating_point():
        raise TargetError(f"site {name!r} has values of {value.dtype}; a real number was expected")
    shape = value.shape if transform is None else transform.inverse_shape(value.shape)
    return Site(
        name=name,
        shape=value.shape,
        unconstrained_shape=torch.Size(shape),
        start=start,
        stop=start + torch.Size(shape).numel(),
        event_dim=node["fn"].event_dim,
        transform=transform,
        dtype=value.dtype,
        log_space=log_space_density(node["fn"]) is not None,
    )


def _any_value(site: Message) -> Tensor:
    """A value of the right shape and dtype: a draw, or zeros where there are no draws."""
    try:
        return _draw(site)
    except NotImplementedError:
        return torch.zeros(site["fn"].shape())


def _draw(site: Message) -> Tensor:
    value: Tensor = site["fn"](*site["args"], **site["kwargs"])
    return value.detach()


def site_transform(site: Message) -> Transform | None:
    """The map from R^k to the support of a site; ``None`` if that is R^k itself.

    Raises:
        TargetError: there is no smooth one.
    """
    support = support_of(site["fn"])
    try:
        return bijection(support)
    except NotImplementedError as error:
        raise TargetError(
            f"site {site['name']!r}: no smooth bijection leads from R^k to its support, {support}; "
            "draw it on R^k or another support and map it with pyro.deterministic"
        ) from error


def _refuse_unmarked(site: Message) -> None:
    name, fn, infer = site["name"], site["fn"], site["infer"]
    if is_rounded(site):
        _refuse_rounded(site)
    kind = type(fn).__name__
    finite = getattr(fn, "has_enumerate_support", False)
    if infer.get("num_samples"):
        raise TargetError(
            f"site {name!r} is marked for enumeration with num_samples=, which is random; "
            "leave num_samples out to sum over all its values"
        )
    if finite and infer.get("enumerate") == "parallel":
        return
    advice = (
        'mark it with @config_enumerate on the model, or infer={"enumerate": "parallel"} on the '
        "site, and it is summed out"
        if finite
        else "its values are not finitely many, so that it cannot be summed out here; write the "
        "marginal density instead (for a Poisson of a Gamma rate, GammaPoisson)"
    )
    raise TargetError(
        f"site {name!r} ({kind}) is discrete and latent: {advice}. If it is data, check that "
        "obs= gets it"
    )


def _refuse_rounded(site: Message) -> None:
    kind = type(bare(site["fn"])).__name__
    relaxed = kind.removesuffix("StraightThrough")
    raise TargetError(
        f"site {site['name']!r} ({kind}) is latent and its draws are rounded, while its density is "
        f"that of {relaxed}: draw it from {relaxed.removeprefix('Relaxed')}, marked with "
        f"@config_enumerate, and it is summed out; or from {relaxed}, whose values are not rounded"
    )
