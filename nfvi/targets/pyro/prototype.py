"""The effect handler for the first run of a Pyro model, which finds out what there is."""

from __future__ import annotations

from collections.abc import Callable

import pyro
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.pyro.handlers import Message, Outermost

__all__ = ["Prototype"]


class Prototype(Outermost):
    """Puts each latent site at a feasible point and writes down parameters and subsamples.

    Args:
        place: ``place(site) -> value`` for a continuous latent site; ``None`` leaves it to Pyro.
        indices: ``indices(site) -> (B,)`` for a plate that draws B of its N indices at random.
    """

    def __init__(
        self,
        place: Callable[[Message], Tensor | None],
        indices: Callable[[Message], Tensor],
    ) -> None:
        super().__init__({}, {})
        self.params: dict[str, Tensor] = {}
        self.subsamples: dict[str, Tensor] = {}
        self.sizes: dict[str, int] = {}
        self._place = place
        self._indices = indices

    def _pyro_sample(self, msg: Message) -> None:
        fn = msg["fn"]
        if (
            isinstance(fn, _Subsample)
            and msg["value"] is None
            and fn.subsample_size is not None
            and fn.subsample_size < fn.size
        ):
            self.subsamples[msg["name"]] = self._indices(msg)
            self.sizes[msg["name"]] = fn.size
        super()._pyro_sample(msg)

    def _pyro_param(self, msg: Message) -> None:
        self.params[msg["name"]] = _parameter(msg)
        super()._pyro_param(msg)

    def _latent(self, msg: Message) -> None:
        msg["value"] = self._place(msg)


def _parameter(msg: Message) -> Tensor:
    """The value of a ``pyro.param`` statement: the stored one, else the one it starts from."""
    name, store = msg["name"], pyro.get_param_store()
    if name in store:
        return store[name].detach()
    if len(msg["args"]) < 2:
        raise TargetError(f"pyro.param({name!r}) has neither a stored nor an initial value")
    start = msg["args"][1]
    value: Tensor = start() if callable(start) else start
    return value.detach().clone()
