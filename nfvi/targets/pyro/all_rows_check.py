"""Whether the density of a Pyro model is a sum over the rows of the plates that it draws from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nfvi.errors import TargetError
from nfvi.targets.checks import agree
from nfvi.targets.pyro.all_rows import AllRows
from nfvi.targets.pyro.all_rows_reader import LEAVE_OUT
from nfvi.targets.pyro.handlers import Message, Values, in_density, is_data, is_deterministic
from nfvi.targets.pyro.minibatch import adds_up
from nfvi.targets.pyro.program import Program
from nfvi.utils import process_wide

__all__ = ["check_rows"]

GIVE_ALL = (
    "give the model the data of all rows, and take those of the plate in it, as y[i] or"
    " pyro.subsample(y, event_dim=0)"
)
# What tells how many indices there are, and not which.
UNREAD = {Tensor.size, Tensor.__len__, Tensor.dim, Tensor.numel}


class _Reads(TorchFunctionMode):
    """Notes which of some tensors of indices are used for more than their length."""

    def __init__(self, indices: Values) -> None:
        super().__init__()
        self._indices = indices
        self.read: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = [*_flat(args), *(kwargs or {}).values()]
        if func not in UNREAD and getattr(func, "__name__", "") != "__get__":
            self.read |= {p for p, i in self._indices.items() if any(i is x for x in given)}
        return func(*args, **(kwargs or {}))


class _Seen(NamedTuple):
    """What one run of the model says: its sites, and the log-densities and values of them."""

    nodes: Mapping[str, Message]
    terms: Mapping[str, Tensor]


def check_rows(program: Program, values: Values) -> frozenset[str]:
    """Check that the density is a sum over the rows of plates that draw their own.

    Each plate is given some rows, others, and some of both, in one order and in the other: what a
    site in it says of a row must be the same, and what others say must not change.

    Args:
        program: the model, with all rows of these plates.
        values: of its latent sites.

    Returns:
        The deterministic sites that are of no row alone, as a mean over the rows of a run.

    Raises:
        TargetError: it is no such sum, or data do not follow the rows.
    """
    all_rows, dropped = program.all_rows, set[str]()
    if all_rows is None:
        return frozenset()
    for plate in all_rows.sizes:
        dropped |= _check_plate(program, all_rows, plate, values)
        if not _sums_add_up(program, all_rows, plate, values):
            raise TargetError(
                f"a discrete site outside of plate {plate!r} is summed out, so that the log-density"
                f" is no sum over the rows of the plate; {LEAVE_OUT}"
            )
    return frozenset(dropped)


def _sums_add_up(program: Program, all_rows: AllRows, plate: str, values: Values) -> bool:
    """Whether sums over discrete sites are over those of one row each."""
    if program.summation is None:
        return True
    if all_rows.counts[plate] > 1:
        return adds_up(program, plate, values)
    return all(plate in all_rows.dims.get(name, {}) for name in program.summation.choices)


def _check_plate(program: Program, all_rows: AllRows, plate: str, values: Values) -> set[str]:
    size, count = all_rows.sizes[plate], all_rows.counts[plate]
    device, half = all_rows.rows[plate].device, count // 2
    order = torch.randperm(size, device=device)
    first, second = order[:count], order[size - count :]
    mixed = torch.cat([first[:half], second[half:]])
    indices = {**program.subsamples, plate: first}
    reads = _Reads({plate: first})
    one = _seen(program, indices, values, reads)
    two, both, back = (
        _seen(program, {**indices, plate: rows}, values) for rows in (second, mixed, first.flip(0))
    )
    dropped = set()
    for name, node in one.nodes.items():
        terms = [seen.terms[name] for seen in (one, two, both, back)]
        axis = _axis(all_rows, plate, name, node, terms[0])
        if axis is None:
            right = all(agree(term, terms[0]) for term in terms)
        else:
            pieces = terms[0].narrow(axis, 0, half), terms[1].narrow(axis, half, count - half)
            right = agree(torch.cat(pieces, axis), terms[2])
            right = right and agree(terms[0].flip(axis), terms[3])
        if not right and is_deterministic(node):
            dropped.add(name)
        elif not right:
            raise TargetError(_refusal(name, node, plate, all_rows, inside=axis is not None))
        elif is_data(node) and axis is not None and plate not in reads.read:
            raise TargetError(_positional(name, plate, all_rows))
    return dropped


def _axis(all_rows: AllRows, plate: str, name: str, node: Message, term: Tensor) -> int | None:
    """The axis of a term that goes along the rows of a plate; ``None`` without any."""
    dim = all_rows.dims.get(name, {}).get(plate)
    if dim is None:
        return None
    axis = dim - all_rows.events[name] if is_deterministic(node) else dim
    found = term.dim() >= -axis and term.shape[axis] == all_rows.counts[plate]
    return axis if found else None


def _seen(program: Program, indices: Values, values: Values, reads: _Reads | None = None) -> _Seen:
    # With copies of the indices, as what is read here is not read by the model.
    copies = {plate: rows.clone() for plate, rows in indices.items()}
    taken = values if program.all_rows is None else program.all_rows.taken(values, copies)
    with nullcontext() if reads is None else reads:
        trace = replace(program.at(indices), all_rows=None).trace(taken)
    with process_wide(), pyro.validation_enabled(False), torch.no_grad():
        trace.compute_log_prob()
    nodes = {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and (in_density(node) or is_deterministic(node))
    }
    terms = {
        name: (node["value"] if is_deterministic(node) else node["log_prob"]).detach()
        for name, node in nodes.items()
    }
    return _Seen(nodes, terms)


def _refusal(name: str, node: Message, plate: str, all_rows: AllRows, *, inside: bool) -> str:
    of = f"plate {plate!r}, which takes {all_rows.counts[plate]} of {all_rows.sizes[plate]} rows"
    if not inside:
        return (
            f"site {name!r} is outside of {of}, and its log-density depends on which: the whole is"
            f" no sum over the rows, over which latent sites are fitted; {LEAVE_OUT}"
        )
    if is_data(node):
        return (
            f"the data of site {name!r} do not follow the indices of {of} and holds latent sites of"
            f" each row; {GIVE_ALL}, or {LEAVE_OUT}"
        )
    return (
        f"the log-density of site {name!r} for a row of {of}, depends on the other rows of the run;"
        f" {LEAVE_OUT}"
    )


def _positional(name: str, plate: str, all_rows: AllRows) -> str:
    return (
        f"site {name!r} is in plate {plate!r}, which takes {all_rows.counts[plate]} of"
        f" {all_rows.sizes[plate]} rows and holds latent sites of each row, and the model does not"
        f" read the indices of the plate: it has no data for the others. {GIVE_ALL[0].upper()}"
        f"{GIVE_ALL[1:]}; or write the plate for the rows at hand, without subsample_size="
    )


def _flat(held: Any) -> list[Any]:
    if isinstance(held, tuple | list):
        return [each for part in held for each in _flat(part)]
    return [held]
