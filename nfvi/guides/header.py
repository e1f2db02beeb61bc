"""How a guide is described in the header of a file, and built again from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from nfvi.formula import Formula
from nfvi.guides.bases import make_base
from nfvi.guides.guide import Guide
from nfvi.guides.mixture import AnyGuide, MixtureGuide
from nfvi.guides.placement import Placement
from nfvi.guides.shapes import Form, check_state, forms_of
from nfvi.utils import Count, Floating, Positive, check_entries, under

__all__ = ["forms_of_header", "guide_from_header", "header_of_guide"]

REQUIRED = {"formula": str, "dim": Positive, "base": str, "dtype": Floating}
# Absent in files of earlier versions.
OPTIONAL = {
    "kind": Literal["guide"],
    "context_dim": Count,
    "placement": Literal["diagonal", "full"] | None,
}


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
    header: dict[str, Any],
    state: dict[str, Tensor],
    device: torch.device | str | None = None,
    place: str = "guide",
) -> AnyGuide:
    """The guide with a header and a state dict; nothing in them is run.

    The tensors are checked against the header before a guide is built, so that what is built is no
    larger than what is there.

    Args:
        header: what :func:`header_of_guide` returned; kind, context_dim and placement may be
            absent, as in files of earlier versions.
        state: the state dict.
        device: where to put the guide; default the CPU.
        place: what an error calls the header.

    Raises:
        ValueError: the header is none, or the state dict is that of another guide; the message
            names the entry or the tensor.
    """
    if not isinstance(header, dict) or header.get("kind", "guide") != "mixture":
        return _loaded(header, state, device, place)
    components = header.get("components")
    if not isinstance(components, list) or not components:
        raise ValueError(f"its entry {place}.components must be a list of guides")
    guides = []
    for k, part in enumerate(components):
        own = under(f"components.{k}.", state)
        guides.append(_loaded(part, own, device, f"{place}.components[{k}]"))
    mixture = MixtureGuide(guides, [1.0] * len(guides))
    weights = {name: t for name, t in state.items() if not name.startswith("components.")}
    form = Form((len(guides),), guides[0].dtype, trained=False)
    check_state(iter([("log_weights", form)]), weights)
    if not bool(weights["log_weights"].isfinite().all()):
        raise ValueError("its tensor 'log_weights' is not finite")
    mixture.load_state_dict(state)
    return mixture


def forms_of_header(header: dict[str, Any], place: str = "guide") -> Iterator[tuple[str, Form]]:
    """Name and form of each tensor of the guide with a header, as of :func:`forms_of`.

    Raises:
        ValueError: an entry is missing or wrong; the message names it.
    """
    read = check_entries(header, REQUIRED, OPTIONAL, place)
    make_base(read["base"])
    return forms_of(
        Formula.parse(read["formula"]),
        read["dim"],
        read.get("context_dim", 0),
        getattr(torch, read["dtype"]),
        read.get("placement"),
    )


def _loaded(
    header: dict[str, Any], state: dict[str, Tensor], device: torch.device | str | None, place: str
) -> Guide:
    check_state(forms_of_header(header, place), state)
    dtype = getattr(torch, header["dtype"])
    guide = Guide(
        header["formula"],
        header["dim"],
        base=header["base"],
        context_dim=header.get("context_dim", 0),
        placement=_placement(header.get("placement"), header["dim"], dtype),
        generator=torch.Generator().manual_seed(0),
        dtype=dtype,
        device=device,
    )
    guide.load_state_dict(state)
    return guide


def _kind_of(placement: Placement | None) -> str | None:
    if placement is None:
        return None
    return "diagonal" if placement.diagonal else "full"


def _placement(kind: str | None, dim: int, dtype: torch.dtype) -> Placement | None:
    if kind is None:
        return None
    return Placement.identity(dim, diagonal=kind == "diagonal", dtype=dtype)
