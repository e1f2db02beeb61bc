"""The log-likelihood of a Pyro model by observation."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.pyro.enum import Summation
from nfvi.targets.pyro.handlers import (
    Fixed,
    Message,
    Values,
    in_density,
    is_data,
    shrinking_plates,
)
from nfvi.targets.pyro.log_einsum import einsum

__all__ = ["Pointwise", "refuse_taken_rows"]

ONE = torch.ones((), dtype=torch.float64)


class Pointwise(Fixed):
    """Writes down log p(y | x) of every observation; arguments as in ``Fixed``.

    Where data depend on a discrete site that is summed out, the sum is over that observation's own:
    log Σ p(y | x, k) p(k | x). One that several observations share is refused.

    Args:
        summation: how discrete sites are summed out; ``None`` without any.
        all_rows: the plates all of whose rows come, run by run.
    """

    def __init__(
        self,
        values: Values,
        params: Values,
        subsamples: Values,
        summation: Summation | None,
        all_rows: Collection[str] = (),
    ) -> None:
        choices = None if summation is None else summation.choices
        super().__init__(values, params, subsamples, choices, frozenset(all_rows))
        self._summation = summation or Summation()
        self._found: dict[str, Tensor] = {}
        self._terms: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        if not in_density(msg):
            return
        name, data = msg["name"], is_data(msg)
        if data:
            _refuse_scaled(msg, self.unscaled)
        log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        log_prob = scale_and_mask(log_prob, mask=msg["mask"])
        if data:
            self._found[name] = log_prob
        if self._summation.summed:
            term = packed.pack(log_prob, self._summation.axes[name])
            if not self._summation.summed.isdisjoint(term._pyro_dims):
                self._terms[name] = term

    def result(self) -> dict[str, Tensor]:
        """The log-likelihoods by site, each of the site's batch shape.

        Raises:
            TargetError: observations share a discrete site that is summed out.
        """
        return {
            name: self._summed(name) if name in self._terms else log_prob
            for name, log_prob in self._found.items()
        }

    def _summed(self, name: str) -> Tensor:
        plates, axes = self._summation.plates, self._summation.axes
        joined = self._joined(name)
        others = [other for other in joined if other in self._found and other != name]
        outside = [other for other in joined if plates[other] != plates[name]]
        if others or outside or not plates[name]:
            raise TargetError(
                f"the log-likelihood of site {name!r} by observation is not available: its terms"
                f" share discrete sites that are summed out, with {_named(others or outside)}."
                " It is there where each observation has a discrete site of its own, in the same"
                " plate and with no other data"
            )
        places = {letter: dim for dim, letter in axes[name].items()}
        inputs = [_letters(self._terms[each]) for each in joined]
        kept = set("".join(inputs)) - self._summation.summed
        output = "".join(sorted(kept, key=lambda letter: places[letter]))
        total = einsum(f"{','.join(inputs)}->{output}", *(self._terms[each] for each in joined))
        total._pyro_dims = output  # type: ignore[attr-defined]
        found: Tensor = packed.unpack(total, places)
        return found

    def _joined(self, name: str) -> list[str]:
        """The sites whose terms hang together with those of a site by what is summed out."""
        letters, near = set[str](), [name]
        while (more := self._summed_letters(near)) != letters:
            letters = more
            near = [n for n, t in self._terms.items() if not letters.isdisjoint(_letters(t))]
        return near

    def _summed_letters(self, names: Iterable[str]) -> set[str]:
        found = {letter for name in names for letter in _letters(self._terms[name])}
        return found & self._summation.summed


def _letters(term: Any) -> str:
    """A letter for each axis of a packed tensor."""
    return str(term._pyro_dims)


def _named(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "all other data"


def _refuse_scaled(msg: Message, all_rows: Collection[str]) -> None:
    refuse_taken_rows(msg, all_rows)
    scale = msg["scale"]
    scale = scale.double().cpu() if isinstance(scale, Tensor) else ONE * float(scale)
    if not torch.allclose(scale, ONE):
        raise TargetError(
            f"site {msg['name']!r} is scaled by poutine.scale: what is scaled is no log-likelihood"
            " of an observation; leave the scale out"
        )


def refuse_taken_rows(msg: Message, all_rows: Collection[str]) -> None:
    """Refuse data in a plate that takes fewer rows than there are.

    Args:
        msg: the site.
        all_rows: plates all of whose rows come, run by run.

    Raises:
        TargetError: it is in another such plate.
    """
    for frame in shrinking_plates(msg):
        if frame.name in all_rows:
            continue
        raise TargetError(
            f"site {msg['name']!r} is in plate {frame.name!r}, which takes {frame.size} of"
            f" {frame.full_size} rows in each run; leave subsample_size= out, as for a second"
            " PyroTarget of the same model that Fit.load(path, target=...) takes"
        )
