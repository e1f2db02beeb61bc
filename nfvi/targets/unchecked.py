"""Distributions whose numbers lie on another device, and that take values as they come."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

from nfvi.targets.bijections import on_device

__all__ = ["unchecked"]


def unchecked(fn: Distribution, device: torch.device) -> Distribution:
    """The same distribution on a device, with no look at whether its values are in the support.

    Such a look reads a number of the device at every call, so that no trace or capture can be made.

    Args:
        fn: a distribution of torch or Pyro, with others within it or not; it is left as it is.
        device: where its tensors are to be.
    """
    other = copy.copy(fn)
    held = {key: _moved(value, device) for key, value in vars(fn).items()}
    vars(other).update(held, _validate_args=False)
    return other


def _moved(held: Any, device: torch.device) -> Any:
    if isinstance(held, Tensor):
        return held.to(device)
    if isinstance(held, Distribution):
        return unchecked(held, device)
    if isinstance(held, Transform):
        return on_device(held, device)
    if isinstance(held, list | tuple):
        return type(held)(_moved(each, device) for each in held)
    return held
