"""The log-density of a Pyro model with its discrete sites summed out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.pyro.handlers import Joint, Message, Values, in_density, is_enumerated

__all__ = ["Summation", "SummedJoint", "read_summation"]


@dataclass(frozen=True)
class Summation:
    """The discrete sites of a model and the axes that their values and terms have.

    Pyro's ``enum`` handler finds these at each run, by means that vmap does not know. They are
    the same in every run, so they are read off one.

    Attributes:
        choices: every value of each enumerated site, along an axis of its own.
        axes: for each site, a letter for each axis of its log-density, counted from the right.
        plates: for each site, the letters of the plates around it.
        summed: the letters of the enumerated sites.
    """

    choices: Mapping[str, Tensor] = field(default_factory=dict)
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    plates: Mapping[str, frozenset[str]] = field(default_factory=dict)
    summed: frozenset[str] = frozenset()


def read_summation(trace: Any) -> Summation:
    """The summation from a trace of the model under ``poutine.enum``."""
    trace.compute_log_prob()
    trace.pack_tensors()
    nodes = {name: node for name, node in trace.nodes.items() if in_density(node)}
    return Summation(
        # A copy leaves behind a mark by which Categorical would know the support for its own.
        choices={n: node["value"].clone() for n, node in nodes.items() if is_enumerated(node)},
        axes={n: dict(node["infer"]["_dim_to_symbol"]) for n, node in nodes.items()},
        plates={
            n: frozenset(
                trace.plate_to_symbol[frame.name]
                for frame in node["cond_indep_stack"]
                if frame.vectorized
            )
            for n, node in nodes.items()
        },
        summed=frozenset(trace.symbol_to_dim) - frozenset(trace.plate_to_symbol.values()),
    )


class SummedJoint(Joint):
    """log Σ over the enumerated sites of the joint density.

    Terms that no enumerated site touches are added as they are. The others go through Pyro's
    plate-aware contraction; as in Pyro's ``TraceEnum_ELBO``, a mask acts inside the sum, and a
    scale (that of a subsampling plate) outside of it.
    """

    def __init__(
        self,
        values: Values,
        params: Values,
        subsamples: Values,
        summation: Summation,
        unscaled: frozenset[str] = frozenset(),
        *,
        parts: Values | None = None,
        strict: bool = False,
    ) -> None:
        choices = summation.choices
        super().__init__(values, params, subsamples, choices, unscaled, parts=parts, strict=strict)
        self._summation = summation
        self._factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
        self._scales: dict[str, float] = {}

    def _add(self, msg: Message, log_prob: Tensor) -> None:
        name, summation = msg["name"], self._summation
        term = packed.pack(scale_and_mask(log_prob, mask=msg["mask"]), summation.axes[name])
        if summation.summed.isdisjoint(term._pyro_dims):
            super()._add(msg, log_prob)
        else:
            self._factors.setdefault(summation.plates[name], []).append(term)
            self._scales[name] = _scalar(msg)

    def result(self) -> Tensor:
        """The log of the sum, once the model has run.

        Raises:
            TargetError: a latent site did not appear, or terms of one sum have different scales.
        """
        total = super().result()
        if not self._factors:
            return total
        summed: Tensor = contract_to_tensor(
            self._factors, set(self._summation.summed), ring=_Ring()
        )
        return total + _common_scale(self._scales) * summed


class _Ring(LogRing):
    _backend = "nfvi.targets.pyro.log_einsum"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]


def _scalar(site: Message) -> float:
    scale = site["scale"]
    if isinstance(scale, Tensor) and scale.dim():
        raise TargetError(
            f"site {site['name']!r} depends on an enumerated site and has a scale of shape "
            f"{tuple(scale.shape)}; only one number can scale a sum"
        )
    return float(scale)


def _common_scale(scales: Mapping[str, float]) -> float:
    if len(set(scales.values())) > 1:
        shown = ", ".join(f"{name!r}: {scale:g}" for name, scale in scales.items())
        raise TargetError(
            "sites that depend on an enumerated site must be scaled alike, by one subsampling "
            f"plate around them all, or without subsample_size=; got {shown}"
        )
    return next(iter(scales.values()))
