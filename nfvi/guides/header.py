"""How a guide is described in the header of a file, and built again from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nfvi.guides.guide import Guide
from nfvi.guides.mixture import AnyGuide, MixtureGuide
from nfvi.guides.placement import Placement

__all__ = ["guide_from_header", "header_of_guide"]


def header_of_guide(guide: AnyGuide) -> dict[str, Any]:
    """What :func:`guide_from_header` needs beside the state dict; JSON-able.

    Args:
        guide: a guide, placed or not, or a mixture of them.
    """
    if isinstance(guide, MixtureGuide):
        return {"kind": "mixture", "components": [header_of_guide(g) for g in guide.guides]}
    return {
        "kind": "guide",
        "formula": str(guide.formula),
        "dim": guide.dim,
        "base": str(guide.base),
        "context_dim": guide.context_dim,
        "dtype": str(guide.dtype).removeprefix("torch."),
        "placement": _kind_of(guide.placement),
    }


def guide_from_header(
    header: dict[str, Any], state: dict[str, Tensor], device: torch.device | str | None = None
) -> AnyGuide:
    """The guide with a header and a state dict; nothing in them is run.

    Args:
        header: what :func:`header_of_guide` returned; kind, context_dim and placement may be
            absent, as in files of earlier versions.
        state: the state dict.
        device: where to put the guide; default the CPU.

    Raises:
        KeyError, ValueError, TypeError, RuntimeError, AttributeError: the header is none, or the
            state dict is that of another guide.
    """
    guide = _empty(header, device)
    guide.load_state_dict(state)
    return guide


def _empty(header: dict[str, Any], device: torch.device | str | None) -> AnyGuide:
    """A guide of the right form, whose numbers are still to be loaded."""
    kind = header.get("kind", "guide")
    if kind == "mixture":
        components = [_one(part, device) for part in header["components"]]
        return MixtureGuide(components, [1.0] * len(components))
    if kind != "guide":
        raise ValueError(f"a guide of kind {kind!r} is not known here")
    return _one(header, device)


def _one(header: dict[str, Any], device: torch.device | str | None) -> Guide:
    dtype = getattr(torch, header["dtype"])
    return Guide(
        header["formula"],
        header["dim"],
        base=header["base"],
        context_dim=header.get("context_dim", 0),
        placement=_placement(header.get("placement"), header["dim"], dtype),
        generator=torch.Generator().manual_seed(0),
        dtype=dtype,
        device=device,
    )


def _kind_of(placement: Placement | None) -> str | None:
    if placement is None:
        return None
    return "diagonal" if placement.diagonal else "full"


def _placement(kind: str | None, dim: int, dtype: torch.dtype) -> Placement | None:
    if kind is None:
        return None
    if kind not in ("diagonal", "full"):
        raise ValueError(f"a placement of kind {kind!r} is not known here")
    return Placement.identity(dim, diagonal=kind == "diagonal", dtype=dtype)
