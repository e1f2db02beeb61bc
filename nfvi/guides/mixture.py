"""A mixture of guides, each of which covers a part of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from nfvi.errors import FitError
from nfvi.formula import Formula
from nfvi.guides.bases import Base
from nfvi.guides.gaussian_parts import gaussian_parts
from nfvi.guides.guide import Guide
from nfvi.utils import check_unmasked

__all__ = ["AnyGuide", "MixtureDistribution", "MixtureGuide", "parts"]


class MixtureGuide(nn.Module):
    """The distribution q(x) = Σ_k w_k q_k(x) of K guides; log q = log Σ_k exp(log w_k + log q_k).

    Draws are reparametrised within their components only: they are differentiable in the parameters
    of the guides, and not in the weights, which are a buffer. Each component has its share of n
    draws to within one, by systematic sampling, so that few draws keep the shares too; the draws
    come in random order.

    Args:
        components: K guides of one dimension and dtype, without context; their formulas, bases and
            placements may differ. They are not copied.
        weights: w (K), over 0; divided by their sum.

    Raises:
        ValueError: there is no component, they do not go together, or the weights are not K
            positive numbers.

    Example:
        >>> start = torch.Generator().manual_seed(0)
        >>> pair = [Guide("scale-loc", dim=2, generator=start) for _ in range(2)]
        >>> MixtureGuide(pair, [0.75, 0.25])
        MixtureGuide of 2 scale-loc with weights 0.750, 0.250
    """

    log_weights: Tensor
    context_dim = 0

    def __init__(self, components: Sequence[Guide], weights: Tensor | Sequence[float]) -> None:
        super().__init__()
        _check_components(components)
        first = components[0]
        shares = _shares(weights, len(components), first.device)
        self.components = nn.ModuleList(components)
        self.dim = first.dim
        self.register_buffer("log_weights", (shares / shares.sum()).log().to(first.dtype))

    @property
    def guides(self) -> tuple[Guide, ...]:
        """The components."""
        return tuple(self.components)  # type: ignore[arg-type]

    @property
    def weights(self) -> Tensor:
        """w (K), float64; their sum is 1."""
        return self.log_weights.detach().double().softmax(0)

    @property
    def formula(self) -> Formula:
        """That of all components, or of the heaviest one where they differ."""
        return self.guides[int(self.log_weights.argmax())].formula

    @property
    def base(self) -> Base:
        """That of all components, or of the heaviest one where they differ."""
        return self.guides[int(self.log_weights.argmax())].base

    @property
    def dtype(self) -> torch.dtype:
        """That of the components."""
        return self.guides[0].dtype

    @property
    def device(self) -> torch.device:
        """That of the components."""
        return self.guides[0].device

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x) (\\*) at points x (\\*, d).

        Raises:
            ValueError: the last dimension of the points is wrong.
        """
        return self.log_parts(x).logsumexp(0)

    def log_parts(self, x: Tensor) -> Tensor:
        """log w_k + log q_k(x) (K, \\*) at points x (\\*, d), as for :meth:`log_prob`."""
        gaussians = gaussian_parts(self.guides)
        if gaussians is not None and x.shape[-1] == self.dim:
            logs = gaussians.log_prob(x)
        else:
            logs = torch.stack([guide.log_prob(x) for guide in self.guides])
        return logs + self.log_weights.reshape(-1, *[1] * (x.dim() - 1))

    def rsample_and_log_prob(
        self, n: int, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """n draws x (n, d), and log q(x) (n), differentiable in the components' parameters.

        Args:
            n: how many.
            generator: source of the draws; ``None`` draws from torch's default generator.
        """
        x = self.rsample(n, generator=generator)
        return x, self.log_prob(x)

    def rsample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n draws x (n, d), as for :meth:`rsample_and_log_prob`."""
        counts = self.counts(n, generator)
        noise = [
            guide.base_sample(count, generator=generator)
            for guide, count in zip(self.guides, counts, strict=True)
        ]
        gaussians = gaussian_parts(self.guides)
        if gaussians is not None:
            draws = gaussians.place(torch.cat(noise), self.components_of(counts))[0]
        else:
            pairs = zip(self.guides, noise, strict=True)
            draws = torch.cat([guide.transform(z)[0] for guide, z in pairs])
        order = torch.randperm(n, generator=generator, device=self.device)
        return draws[order]

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n draws x (n, d), the same as those of :meth:`rsample_and_log_prob`."""
        return self.rsample(n, generator=generator)

    def distribution(self) -> MixtureDistribution:
        """The mixture as a ``torch.distributions.Distribution`` over vectors of length d."""
        return MixtureDistribution(self)

    def counts(self, n: int, generator: torch.Generator | None) -> list[int]:
        """How many of n draws each component gives: n w_k on average, and within one of that."""
        uniform = torch.rand((), generator=generator, dtype=torch.float64, device=self.device)
        edges = (n * self.weights.cumsum(0) + uniform).floor().long()
        edges[-1] = n  # the sum of the weights may miss 1 by rounding
        edges = edges.clamp_max(n)
        return edges.diff(prepend=edges.new_zeros(1)).tolist()

    def components_of(self, counts: Sequence[int]) -> Tensor:
        """The number of the component of each draw (n), for counts (K) one after the other."""
        each = torch.arange(len(counts), device=self.device)
        return each.repeat_interleave(torch.tensor(counts, device=self.device))

    def transform(self, *_: object, **__: object) -> NoReturn:
        """Refused: a mixture is no image of its base under one map.

        Raises:
            FitError: always.
        """
        raise FitError(
            f"a mixture of {len(self.components)} guides has no single map from its base: take"
            " sample and log_prob of the mixture, or a map of one component,"
            " guide.components[0].transform"
        )

    inverse = base_sample = forward = transform

    def __str__(self) -> str:
        texts = list(dict.fromkeys(str(guide.formula) for guide in self.guides))
        return f"mixture of {len(self.components)} {' and '.join(texts)}"

    def __repr__(self) -> str:
        weights = ", ".join(f"{w:.3f}" for w in self.weights.tolist())
        return f"MixtureGuide{str(self).removeprefix('mixture')} with weights {weights}"


AnyGuide: TypeAlias = Guide | MixtureGuide


class MixtureDistribution(Distribution):
    """A mixture as a torch distribution: event shape (d,), batch shape ().

    Draws come from torch's default generator, and those of one call are shared among the components
    as in :class:`MixtureGuide`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, guide: MixtureGuide, validate_args: bool | None = None) -> None:
        self.guide = guide
        super().__init__(event_shape=torch.Size([guide.dim]), validate_args=validate_args)

    def rsample(
        self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()
    ) -> Tensor:
        """Draws (\\*sample_shape, d), differentiable in the components' parameters."""
        shape = torch.Size(sample_shape)
        return self.guide.rsample(shape.numel()).reshape(*shape, self.guide.dim)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) (\\*) for points (\\*, d)."""
        if self._validate_args:
            self._validate_sample(value)
        return self.guide.log_prob(value)


def parts(guide: AnyGuide) -> tuple[Guide, ...]:
    """The components of a mixture, or a guide alone."""
    return guide.guides if isinstance(guide, MixtureGuide) else (guide,)


def _shares(weights: Tensor | Sequence[float], number: int, device: torch.device) -> Tensor:
    wanted = f"weights must be {number} positive numbers, one for each component, got {weights!r}"
    check_unmasked("weights", weights)
    try:
        shares = torch.as_tensor(weights, dtype=torch.float64, device=device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(wanted) from error
    usable = shares.shape == (number,) and bool((shares.isfinite() & (shares > 0)).all())
    if not usable:
        raise ValueError(wanted)
    return shares


def _check_components(components: Sequence[Guide]) -> None:
    if not isinstance(components, Sequence | nn.ModuleList):
        raise ValueError(f"components must be a list of guides, got {type(components).__name__}")
    if not components:
        raise ValueError("components must hold at least one guide")
    first = components[0]
    for guide in components:
        if not isinstance(guide, Guide):
            raise ValueError(
                f"components must be guides such as fit.guide, got {type(guide).__name__}"
            )
        if guide.context_dim:
            raise ValueError("components must be guides without context")
        for name in ("dim", "dtype", "device"):
            got, wanted = getattr(guide, name), getattr(first, name)
            if got != wanted:
                raise ValueError(f"components must have one {name}, got {wanted} and {got}")
