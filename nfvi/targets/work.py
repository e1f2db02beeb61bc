"""How much work a log-density is, in numbers written, which do not change from run to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nfvi.targets.anywhere import log_prob_anywhere
from nfvi.targets.base import Target

__all__ = ["numbers_per_point"]


class _Counter(TorchFunctionMode):
    """Adds up the numbers that the functions of torch return."""

    numbers = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, Tensor):
                self.numbers += part.numel()
        return out


@torch.no_grad()
def numbers_per_point(target: Target, z: Tensor) -> float:
    """Numbers that the operations of log p return for each of some points z (n, d).

    Seconds would be others in every run, and with them what a seed gives. 10⁴ numbers a point are
    about a second for 10⁵ points on one core.

    Args:
        target: log p.
        z: some tens of points.
    """
    log_prob_anywhere(target, z)  # the first call may check the target, which is other work
    counter = _Counter()
    with counter:
        log_prob_anywhere(target, z)
    # Under vmap a function of torch sees one point, and runs once for all.
    numbers: int = counter.numbers
    return numbers / (1 if target.batching == "vmap" else len(z))
