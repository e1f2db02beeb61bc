"""The device on which a model makes its tensors: that of its values, numbers in it included."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["device_of", "made_on"]


def device_of(*held: Any) -> torch.device | None:
    """The device of the first tensor among arguments, in lists and dicts too, that is no number.

    A tensor on the CPU counts only where there is none on another device, as one kept beside data
    on a GPU.
    """
    found: torch.device | None = None
    for each in held:
        place: torch.device | None
        if isinstance(each, Tensor):
            place = each.device
        elif isinstance(each, Mapping):
            place = device_of(*each.values())
        else:
            place = device_of(*each) if isinstance(each, list | tuple) else None
        if place is not None and place.type != "cpu":
            return place
        found = found or place
    return found


def made_on(device: torch.device | None) -> AbstractContextManager[Any]:
    """For a run of a model: tensors that it makes without saying where are made on a device.

    So ``dist.Normal(0.0, 1.0)`` is on the GPU where the other sites are. ``None`` leaves it to
    torch's default, and so does a device that is the default, at no cost.
    """
    same = device is None or device == torch.get_default_device()
    return nullcontext() if same else device  # type: ignore[return-value]
