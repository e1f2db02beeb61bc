"""Optimisers without what ``torch.optim`` brings for PyTorch's compiler."""

from __future__ import annotations

import inspect
from typing import Any

from torch import optim

__all__ = ["WithoutCompiler"]


class WithoutCompiler(optim.Optimizer):
    """Base of optimisers that can be made without importing ``torch._dynamo``.

    The first parameters that any class of ``torch.optim`` is given import it, which takes as long
    as a short fit.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See ``torch.optim.Optimizer``."""
        inspect.unwrap(optim.Optimizer.add_param_group)(self, param_group)
