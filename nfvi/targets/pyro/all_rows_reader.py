"""Reading which plates of a Pyro model hold latent sites and draw rows: all of them are fitted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Transform

from nfvi.errors import TargetError
from nfvi.targets.bijections import joined_transform
from nfvi.targets.checks import USER_ERRORS, agree
from nfvi.targets.pyro.all_rows import AllRows, runs_over
from nfvi.targets.pyro.handlers import Message, Values, is_deterministic, shrinking_plates
from nfvi.targets.pyro.latents import site_transform
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site
from nfvi.utils import Counter, check_memory

__all__ = ["LEAVE_OUT", "full_sites", "latent_plates", "read_all_rows", "through_vmap"]

LEAVE_OUT = "leave subsample_size= out, so that each run of the model has all rows"
# Values, and what autograd keeps of them.
COPIES = 2


def latent_plates(
    nodes: Iterable[Message], names: Collection[str], drawn: Collection[str]
) -> tuple[str, ...]:
    """The plates that draw their own rows and hold a continuous latent site.

    Args:
        nodes: the sites of a trace.
        names: the continuous latent ones.
        drawn: the plates that draw their own rows.

    Raises:
        TargetError: one of them is a loop over its rows.
    """
    found: dict[str, None] = {}
    for node in nodes:
        if node["name"] not in names:
            continue
        for frame in shrinking_plates(node):
            if frame.name in drawn and not frame.vectorized:
                raise TargetError(
                    f"plate {frame.name!r} is a loop over {frame.size} of {frame.full_size} rows,"
                    f" and holds the latent site {node['name']!r}: the sites are others in each"
                    f" run. Write it as `with pyro.plate(...)`, or {LEAVE_OUT}"
                )
            if frame.name in drawn:
                found[frame.name] = None
    return tuple(found)


def read_all_rows(
    program: Program, nodes: Mapping[str, Message], values: Values, plates: Collection[str]
) -> AllRows:
    """The runs over all rows of some plates, as a trace of one run shows the sites in them.

    Args:
        program: the model.
        nodes: the trace.
        values: of its latent sites in that run.
        plates: their names.

    Raises:
        TargetError: there are more rows than memory holds.
    """
    sizes = {plate: program.sizes[plate] for plate in plates}
    counts = {plate: len(program.subsamples[plate]) for plate in plates}
    numbers = _checked_numbers(program, values, sizes, counts)
    dims: dict[str, dict[str, int]] = {}
    events: dict[str, int] = {}
    for name, node in nodes.items():
        around = {
            frame.name: int(frame.dim)
            for frame in node["cond_indep_stack"]
            if frame.name in sizes and frame.vectorized
        }
        if around and not isinstance(node["fn"], _Subsample):
            dims[name], events[name] = around, _events(node)
    device = program.subsamples[next(iter(sizes))].device
    return replace(runs_over(sizes, counts, dims, events), numbers=numbers).to(device)


def _events(node: Message) -> int:
    own = int(node["fn"].event_dim)
    # What pyro.deterministic says where it was not told.
    return 0 if is_deterministic(node) and own == node["value"].dim() else own


def _checked_numbers(
    program: Program, values: Values, sizes: Mapping[str, int], counts: Mapping[str, int]
) -> float:
    """Numbers that the log-density of all rows writes for one point, if memory holds them."""
    with Counter() as counter, torch.no_grad():
        program.log_joint(values)
    numbers = float(counter.numbers)
    for plate, size in sizes.items():
        numbers *= size / counts[plate]
    itemsize = max(value.element_size() for value in values.values())
    device = program.subsamples[next(iter(sizes))].device
    shown = ", ".join(f"{size:,} rows of plate {plate!r}" for plate, size in sizes.items())
    advice = (
        "leave these latent sites out by integrating over them, or fit fewer rows; a step sees"
        " all rows where their plate holds latent sites"
    )
    needed = int(COPIES * itemsize * numbers)
    try:
        check_memory(f"the log-density of {shown}", needed, device, advice)
    except ValueError as error:
        raise TargetError(str(error)) from None
    return numbers


def full_sites(
    program: Program, sites: Mapping[str, Site], nodes: Mapping[str, Message]
) -> dict[str, Site]:
    """The latent sites with N numbers in place of B along plates, and their places in z.

    Args:
        program: the model.
        sites: those of one run.
        nodes: its trace.
    """
    all_rows = program.all_rows
    if all_rows is None:
        return dict(sites)
    transforms = _full_transforms(program, all_rows, sites, nodes)
    found: dict[str, Site] = {}
    start = 0
    for name, site in sites.items():
        fewer = len(site.shape) - len(site.unconstrained_shape)
        inner = all_rows.full_shape(name, site.unconstrained_shape, fewer)
        found[name] = replace(
            site,
            shape=all_rows.full_shape(name, site.shape),
            unconstrained_shape=inner,
            start=start,
            stop=start + inner.numel(),
            transform=transforms.get(name, site.transform),
        )
        start += inner.numel()
    return found


def _full_transforms(
    program: Program, all_rows: AllRows, sites: Mapping[str, Site], nodes: Mapping[str, Message]
) -> dict[str, Transform]:
    """Maps whose bounds are tensors, as those of Uniform are, with the bounds of all rows."""
    names = [n for n, s in sites.items() if n in all_rows.dims and _holds_tensors(s.transform)]
    if not names:
        return {}
    # Values of some rows do for others, as only the distributions are looked at.
    values = {name: nodes[name]["value"] for name in sites}
    alone = replace(program, all_rows=None)
    traces = [alone.at(rows).trace(values).nodes for rows in all_rows.each()]

    def full(name: str) -> Transform:
        def join(bounds: Any) -> Tensor:
            return all_rows.join(name, torch.stack(list(bounds)), events=True)

        transforms: Any = [site_transform(trace[name]) for trace in traces]
        return joined_transform(transforms, join)

    return {name: full(name) for name in names}


def _holds_tensors(transform: Transform | None) -> bool:
    seen: list[Tensor] = []

    def note(held: Any) -> Tensor:
        seen.append(held[0])
        return held[0]  # type: ignore[no-any-return]

    if transform is not None:
        joined_transform([transform], note)
    return bool(seen)


def through_vmap(program: Program, values: Values) -> Program:
    """The program with all of its runs in one call of the model, where that goes through vmap.

    Args:
        program: the model.
        values: of its latent sites.
    """
    all_rows = program.all_rows
    if all_rows is None:
        return program
    few = all_rows.some()
    alone, together = (replace(few, mapped=mapped) for mapped in (False, True))
    reason = "its values differ then"
    try:
        expected = replace(program, all_rows=alone).log_joint(values)
        if agree(replace(program, all_rows=together).log_joint(values), expected):
            return replace(program, all_rows=replace(all_rows, mapped=True))
    except USER_ERRORS as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return replace(program, not_mapped=reason)
