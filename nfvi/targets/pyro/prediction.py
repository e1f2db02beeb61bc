"""Data drawn from a Pyro model at given values of its latent sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.pyro.handlers import (
    Message,
    Outermost,
    Values,
    in_density,
    is_data,
    is_deterministic,
    is_enumerated,
)
from nfvi.targets.pyro.likelihood import refuse_taken_rows

__all__ = ["Predict", "redrawn"]


class Predict(Outermost):
    """Draws the observed sites at given latent values, and writes down what it drew.

    A site without data that has no value given, as the outcome of new rows, is drawn too. So is a
    discrete site that is summed out, from its prior given the other sites: as for a new unit of its
    plate. One that all data share is refused, as its posterior is not available.

    Args:
        values: of the continuous latent sites.
        params: the value of each ``pyro.param``.
        subsamples: the indices of each plate that draws its own.
        all_rows: the plates all of whose rows come, run by run, and how many rows each has.
        everything: whether deterministic sites are written down too.
    """

    def __init__(
        self,
        values: Values,
        params: Values,
        subsamples: Values,
        all_rows: Mapping[str, int],
        *,
        everything: bool,
    ) -> None:
        super().__init__(params, subsamples, frozenset(all_rows))
        self.values = values
        self._all_rows = all_rows
        self.found: dict[str, Tensor] = {}
        self._everything = everything
        self._plates: dict[str, frozenset[str]] = {}
        self._discrete: dict[str, frozenset[str]] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if msg["name"] in self._all_rows and isinstance(msg["fn"], _Subsample):
            self._check_rows(msg)
        if is_data(msg):
            refuse_taken_rows(msg, self._all_rows)
            self._check_shared(msg)
            msg["value"] = redrawn(msg)
        super()._pyro_sample(msg)

    def _latent(self, msg: Message) -> None:
        name = msg["name"]
        if name in self.values:
            msg["value"], msg["done"] = self.values[name], True
        elif is_enumerated(msg):
            self._discrete[name] = _plates(msg)

    def _pyro_post_sample(self, msg: Message) -> None:
        name = msg["name"]
        if is_deterministic(msg):
            kept = self._everything
        else:
            drawn = not msg["is_observed"] and name not in self._discrete
            kept = in_density(msg) and name not in self.values and (drawn or is_data(msg))
        if kept:
            self.found[name] = msg["value"]

    def _check_rows(self, msg: Message) -> None:
        size, rows = msg["fn"].size, self._all_rows[msg["name"]]
        if size != rows:
            raise TargetError(
                f"plate {msg['name']!r} has {size} rows with these arguments; it holds latent"
                f" sites, which are known for the {rows} rows that they were fitted to"
            )

    def _check_shared(self, msg: Message) -> None:
        for name, plates in self._discrete.items():
            if not plates or plates != _plates(msg):
                raise TargetError(
                    f"site {name!r} is summed out and shared by observations of site"
                    f" {msg['name']!r}; its posterior is not among the draws, so that no data can"
                    " be drawn at it. Data can be drawn where each observation has a discrete"
                    " site of its own, in the same plate"
                )


def redrawn(msg: Message) -> Tensor:
    """A draw of an observed site.

    A site whose data have more batch dimensions than its distribution is drawn independently along
    them, as its log-density is summed over them.
    """
    fn, data = msg["fn"], msg["value"]
    given = data.shape[: data.dim() - fn.event_dim]
    batch = torch.broadcast_shapes(given, fn.batch_shape)
    if batch != fn.batch_shape:
        fn = fn.expand(batch)
    value: Tensor = fn(*msg["args"], **msg["kwargs"])
    return value


def _plates(msg: Any) -> frozenset[str]:
    return frozenset(frame.name for frame in msg["cond_indep_stack"] if frame.vectorized)
