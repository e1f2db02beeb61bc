"""What ``init=`` of a fit comes to: where the guides start, and what it cost to find out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nfvi.errors import FitError, TargetError
from nfvi.fit import Approximation, Fit
from nfvi.guides import Guide, Placement, header_of_guide, parts
from nfvi.inference.guide_spec import GuideSpec
from nfvi.starts import FULL_RANK_LIMIT, STARTS, StartName, find_start
from nfvi.targets import Target, log_prob_and_score, takes_rows
from nfvi.utils import check_unmasked

__all__ = ["WORDS", "Beginning", "Init", "read_init", "resumed_init"]

Init: TypeAlias = str | Fit | Tensor | Mapping[str, Any] | Any
WORDS = (*STARTS, "zeros")
ACCEPTED = (
    f"{', '.join(repr(word) for word in WORDS[:-1])} or {WORDS[-1]!r}, a point (d,) of"
    " unconstrained space, a dict of a model's sites, or a Fit"
)
DRAWS = 10_000
# The curvature at a mode takes 2 d gradients on all rows, which is to cost less than the fit.
CURVATURE_LIMIT = 1_000


@dataclass(frozen=True)
class Beginning:
    """How the guides of a fit start.

    Attributes:
        label: what ``fit.settings["init"]`` says.
        search: the start that is still to be found, if any.
        fallback: whether guides start around the identity where none is found.
        placement: the map behind the flows of every guide, or ``None`` for none.
        sources: guides whose parameters and placements are copied, one for each restart in turn;
            none for guides that start around the identity.
        batched_evaluations: of the target, one after the other.
        gradient_evaluations: points at which its gradient was taken.
    """

    label: str = "zeros"
    search: StartName | None = None
    fallback: bool = False
    placement: Placement | None = None
    sources: tuple[Guide, ...] = ()
    batched_evaluations: int = 0
    gradient_evaluations: int = 0

    def found(self, spec: GuideSpec, target: Target, seed: int) -> Beginning:
        """The same with its start found, where there was one to find.

        Raises:
            FitError: there is no such start.
        """
        if self.search is None:
            return self
        # Another stream than those of the guides, the ranking, the diagnostics and the mixture.
        generator = torch.Generator(spec.device).manual_seed(seed + 3)
        try:
            start = find_start(target, self.search, generator, spec.target_dtype(target))
        except FitError:
            if not self.fallback:
                raise
            return Beginning()
        return replace(
            self,
            label=self.label.format(start.name),
            search=None,
            placement=start.placement(spec.base.sd),
            batched_evaluations=start.iterations,
            gradient_evaluations=start.gradient_evaluations,
        )

    def guides(self, spec: GuideSpec, target: Target) -> Callable[[torch.Generator], Guide]:
        """A function that makes the guide of the next restart from a generator."""
        dim, dtype = target.dim, spec.target_dtype(target)
        sources = cycle(self.sources or (None,))

        def make(generator: torch.Generator) -> Guide:
            source = next(sources)
            placement = self.placement if source is None else source.placement
            guide = spec.guide(dim, dtype, generator, placement=placement)
            if source is not None:
                guide.load_state_dict(source.state_dict())
            return guide

        return make


def read_init(spec: GuideSpec, target: Target, init: Init) -> Beginning:
    """Read ``init=`` of :meth:`nfvi.NFVI.fit`; nothing is fitted yet.

    Raises:
        ValueError, TargetError: it is none of what is accepted, or does not fit the target.
    """
    if init is None:
        return _of_rows(spec, target) if takes_rows(target) else Beginning()
    if isinstance(init, str):
        return _of_word(spec, init)
    if isinstance(init, Approximation):
        return _of_fit(spec, target, init)
    point = _sites(spec, target, init) if isinstance(init, Mapping) else _point(spec, init)
    if point.shape != (target.dim,):
        raise ValueError(
            f"init= is a point of shape {tuple(point.shape)}, and {target.name!r} takes"
            f" ({target.dim},); init takes {ACCEPTED}"
        )
    log_p, gradient = log_prob_and_score(target, point.to(spec.target_dtype(target)).unsqueeze(0))
    if not bool(log_p.isfinite().all() & gradient.isfinite().all()):
        raise ValueError(
            f"init= is the point {point.tolist()}, at which the log-density of {target.name!r} or"
            " its gradient is not finite; start where the density is positive"
        )
    return Beginning("point", placement=Placement(point, torch.ones_like(point).diag_embed()))


def resumed_init(target: Target, values: dict[str, Any]) -> Beginning:
    """The beginning of a fit whose checkpoint has these values; its numbers are in the tensors."""
    kind = values.get("placement")
    placement = Placement.identity(target.dim, diagonal=kind == "diagonal") if kind else None
    return Beginning(values.get("init", "zeros"), placement=placement)


def _of_rows(spec: GuideSpec, target: Target) -> Beginning:
    """Where a fit to many rows starts by itself: at the mode, which is far narrower than the base.

    All rows at one point cost as much as a few steps.
    """
    if target.dim > CURVATURE_LIMIT:
        return Beginning()
    try:
        spec.base.sd  # noqa: B018
    except NotImplementedError:  # nothing can be placed behind it
        return Beginning()
    return Beginning("auto ({})", search="uphill", fallback=True)


def _of_word(spec: GuideSpec, word: str) -> Beginning:
    if word not in WORDS:
        raise ValueError(f"init= got {word!r}; it takes {ACCEPTED}")
    if word == "zeros":
        return Beginning()
    try:
        spec.base.sd  # noqa: B018
    except NotImplementedError as error:
        raise ValueError(f"init={word!r} needs the spread of the base: {error}") from error
    label = "auto ({})" if word == "auto" else word
    return Beginning(label, search=word)  # type: ignore[arg-type]


def _of_fit(spec: GuideSpec, target: Target, fit: Approximation) -> Beginning:
    """Copies of its guides where they are of the same form, else its mean and covariance."""
    if fit.dim != target.dim:
        raise TargetError(
            f"init= is a fit with dim={fit.dim}, and {target.name!r} has dim={target.dim}: give"
            " a fit of the same dimension, or leave init= out"
        )
    guides = parts(fit.guide)
    first = header_of_guide(guides[0])
    alike = all(header_of_guide(guide) == first for guide in guides)
    if alike and (first["formula"], first["base"]) == (str(spec.formula), str(spec.base)):
        return Beginning("fit", sources=guides)
    placement = _moments(fit, spec.base.sd).to(spec.device)
    return Beginning("fit (mean and covariance)", placement=placement)


def _moments(fit: Approximation, base_sd: float) -> Placement:
    """Mean and covariance of draws of a fit, or sds alone in one or more than 300 dimensions."""
    generator = torch.Generator(fit.guide.device).manual_seed(fit.seed)
    draws = fit.guide.sample(DRAWS, generator=generator).double()
    mean, sd = draws.mean(0), draws.std(0)
    if not bool((mean.isfinite() & sd.isfinite() & (sd > 0)).all()):
        raise ValueError(
            f"init= is a fit of {fit.settings['target']!r} whose draws have no finite mean and sd;"
            f" init takes {ACCEPTED}"
        )
    # A covariance of one coordinate is its variance alone, and no matrix to torch.
    if fit.dim > FULL_RANK_LIMIT or fit.dim == 1:
        return Placement(mean, sd / base_sd)
    # Scaled to a unit diagonal, so that the units of the coordinates do not matter.
    lower, info = torch.linalg.cholesky_ex(((draws - mean) / sd).T.cov())
    return Placement(mean, sd / base_sd if int(info) else sd.unsqueeze(1) * lower / base_sd)


def _point(spec: GuideSpec, init: Any) -> Tensor:
    check_unmasked("init", init)
    try:
        return torch.as_tensor(init, dtype=torch.float64, device=spec.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"a {type(init).__name__}" if isinstance(init, nn.Module) else repr(init)
        raise ValueError(f"init= got {got}; it takes {ACCEPTED}") from error


def _value(spec: GuideSpec, site: str, value: Any) -> Tensor:
    try:
        return _point(spec, value)
    except ValueError as error:
        raise ValueError(
            f"init= got a dict of sites, in which site {site!r} is {value!r}: give a number, an"
            " array or a tensor"
        ) from error


def _sites(spec: GuideSpec, target: Target, init: Mapping[str, Any]) -> Tensor:
    unconstrain: Callable[..., Tensor] | None = getattr(target, "unconstrain", None)
    if unconstrain is None:
        raise ValueError(
            f"init= got a dict of sites, which needs a model; {target.name!r} takes a point"
            f" ({target.dim},)"
        )
    try:
        return unconstrain({name: _value(spec, name, value) for name, value in init.items()})
    except TargetError as error:
        raise TargetError(f"init= got a dict of sites: {error}") from error
