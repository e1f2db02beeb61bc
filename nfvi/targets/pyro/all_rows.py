"""Plates that take a few rows in each run of a model: all of their rows, over many runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nfvi.targets.pyro.handlers import Message, Values

__all__ = ["AllRows", "Drawn", "list_of_parts", "runs_over"]

Run = Callable[[Values], Any]
"""From the numbers (B,) of the rows of each plate to what one run of the model gives."""


@dataclass(frozen=True)
class AllRows:
    """The runs of a model over all rows of some plates, each of which takes B of its N in a run.

    With J(I) the log-density of rows I, scaled by N/B as the plate does, that of all rows is
    Σ w J(I) over the parts of the rows, see :func:`list_of_parts`. Plates that meet at a site go
    through all pairs of their parts. Those that do not are summed over one after the other, with
    the others at their first part: Σ over C such groups, less C − 1 times the first parts alone.

    Attributes:
        sizes: N of each plate.
        counts: B of each.
        groups: the plates, those that meet together.
        dims: site -> plate around it -> its dimension among those of the batch, from the right.
        events: site -> how many dimensions of its value are one event.
        rows: plate -> (K, B), its rows in each of the K runs.
        weights: of the runs (K,), float64; they add up to 1.
        parts: plate -> (K,), which of its parts that is.
        numbers: that the log-density of all rows writes for one point.
        mapped: whether one call of the model takes all runs, by vmap.
    """

    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    groups: tuple[tuple[str, ...], ...]
    dims: Mapping[str, Mapping[str, int]]
    events: Mapping[str, int]
    rows: Mapping[str, Tensor]
    weights: Tensor
    parts: Mapping[str, Tensor]
    numbers: float = 0.0
    mapped: bool = False

    def to(self, device: torch.device) -> AllRows:
        """The same with its rows on a device."""
        return replace(
            self,
            rows={plate: rows.to(device) for plate, rows in self.rows.items()},
            weights=self.weights.to(
                device, torch.float32 if device.type == "mps" else self.weights.dtype
            ),
        )

    def each(self) -> Iterator[dict[str, Tensor]]:
        """The rows (B,) of each plate, run by run."""
        for run in range(len(self.weights)):
            yield {plate: rows[run] for plate, rows in self.rows.items()}

    def some(self) -> AllRows:
        """Three of the runs, to try them out."""
        few = [0, len(self.weights) // 2, -1]
        rows = {plate: rows[few] for plate, rows in self.rows.items()}
        return replace(self, rows=rows, weights=self.weights[few])

    def taken(self, values: Values, rows: Values, like: Values | None = None) -> dict[str, Tensor]:
        """The numbers of some rows, of values (\\*, N, \\*) of the latent sites.

        Args:
            values: by site.
            rows: plate -> (B,).
            like: the values themselves, where ``values`` are the unconstrained numbers that they
                are made from, whose events may have fewer dimensions.
        """
        found = dict(values)
        for name, value in values.items():
            shift = 0 if like is None else like[name].dim() - value.dim()
            for plate, axis in self._axes(name, events=True).items():
                value = value.index_select(axis + shift, rows[plate])
            found[name] = value
        return found

    def total(self, run: Run) -> Tensor:
        """Σ w J(I), where ``run`` gives the log-density () or (n,) of rows I."""
        joint = self._stacked(lambda rows: {"": run(rows)}, mapped=self.mapped)[""]
        total = torch.tensordot(self.weights.to(joint), joint, 1)
        # A weight may be negative, and ∞ − ∞ is no number.
        return torch.where((joint == -torch.inf).any(0), -torch.inf, total)

    def joined(self, run: Run, *, events: bool, mapped: bool | None = None) -> dict[str, Tensor]:
        """What each run gives by site for its rows (\\*, B, \\*), for all of them (\\*, N, \\*).

        Args:
            run: gives tensors by site; what is in no plate is taken from the first.
            events: whether they have the site's event dimensions.
            mapped: whether by vmap; by default as the log-density.
        """
        stacked = self._stacked(run, mapped=self.mapped if mapped is None else mapped)
        return {name: self.join(name, each, events=events) for name, each in stacked.items()}

    def join(self, name: str, stacked: Tensor, *, events: bool) -> Tensor:
        """The numbers of a site for all rows, of those of each run (K, \\*, B, \\*)."""
        axes = self._axes(name, events=events)
        if not events and axes:
            # A sum over a discrete site is without the axis of a plate of one row.
            missing = max(-axis for axis in axes.values()) - (stacked.dim() - 1)
            stacked = stacked.reshape(len(stacked), *(1,) * missing, *stacked.shape[1:])
        axes = {p: a for p, a in axes.items() if self._has(stacked, p, a)}
        group = next((group for group in self.groups if axes.keys() & set(group)), ())
        lengths = [self._parts_of_plate(plate) for plate in group]
        start = sum(
            math.prod(map(self._parts_of_plate, other))
            for other in self.groups[: self.groups.index(group) if group else 0]
        )
        found: Tensor = stacked[start : start + math.prod(lengths)].unflatten(0, lengths or [1])
        for place in reversed(range(len(lengths))):
            plate = group[place]
            if plate not in axes:
                found = found.select(place, 0)
                continue
            axis, whole = axes[plate], -(-self.sizes[plate] // self.counts[plate])
            found = found.narrow(place, 0, whole).movedim(place, axis - 1)
            found = found.flatten(axis - 1, axis).narrow(axis, 0, self.sizes[plate])
        return found if group else found[0]

    def full_shape(self, name: str, shape: torch.Size, less: int = 0) -> torch.Size:
        """A shape with N in place of B; ``less`` is by how many dimensions its event is shorter."""
        sizes = list(shape)
        for plate, axis in self._axes(name, events=True).items():
            sizes[axis + less] = self.sizes[plate]
        return torch.Size(sizes)

    def _axes(self, name: str, *, events: bool) -> dict[str, int]:
        shift = self.events.get(name, 0) if events else 0
        return {plate: dim - shift for plate, dim in self.dims.get(name, {}).items()}

    def _has(self, stacked: Tensor, plate: str, axis: int) -> bool:
        return stacked.dim() > -axis and stacked.shape[axis] == self.counts[plate]

    def _parts_of_plate(self, plate: str) -> int:
        whole, rest = divmod(self.sizes[plate], self.counts[plate])
        return whole + 2 * bool(rest)

    def _stacked(self, run: Run, *, mapped: bool) -> dict[str, Tensor]:
        if mapped:
            found: dict[str, Tensor] = torch.func.vmap(run, randomness="same")(dict(self.rows))
            return found
        runs = [run(rows) for rows in self.each()]
        return {name: torch.stack([each[name] for each in runs]) for name in runs[0]}


class Drawn:
    """The draws of latent sites over all runs, of which those of the same rows are the same.

    Args:
        all_rows: the runs.
    """

    def __init__(self, all_rows: AllRows) -> None:
        self._all_rows = all_rows
        self._known: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._run = 0

    def over(self, run: Run) -> dict[str, Tensor]:
        """The values of all rows, where ``run`` gives those of some rows by site."""

        def one(rows: Values) -> Any:
            found = run(rows)
            self._run += 1
            return found

        return self._all_rows.joined(one, events=True, mapped=False)

    def value(self, site: Message, draw: Callable[[Message], Tensor | None]) -> Tensor | None:
        """The value of a site for the rows of this run: known, or else drawn."""
        key = site["name"], tuple(self._part(plate) for plate in self._plates(site["name"]))
        if key not in self._known:
            value = draw(site)
            if value is None:
                return None
            self._known[key] = value
        return self._known[key]

    def _plates(self, name: str) -> Mapping[str, int]:
        return self._all_rows.dims.get(name, {})

    def _part(self, plate: str) -> int:
        return int(self._all_rows.parts[plate][self._run])


def list_of_parts(n: int, count: int) -> tuple[Tensor, Tensor]:
    """Parts of n rows, each with ``count`` of them (K, count), and their weights w (K,).

    A plate takes B rows and no other number of them, and scales them by N/B; w = B/N takes that
    back. Where the last part is short by k rows, the last row is repeated in it, and what that is
    too much is taken off by w = −k/N of B times that row. All w add up to 1, so that what is not
    in the plate is counted once.
    """
    whole, short = -(-n // count), -n % count
    rows = torch.arange(whole * count).clamp_max(n - 1).reshape(whole, count)
    weights = torch.full((whole,), count / n, dtype=torch.float64)
    if short:
        rows = torch.cat([rows, torch.full((1, count), n - 1)])
        weights = torch.cat([weights, weights.new_full((1,), -short / n)])
    return rows, weights


def runs_over(
    sizes: Mapping[str, int],
    counts: Mapping[str, int],
    dims: Mapping[str, Mapping[str, int]],
    events: Mapping[str, int],
) -> AllRows:
    """The runs over all rows of some plates; arguments as for :class:`AllRows`."""
    groups = _groups(sizes, dims)
    numbers, weights = zip(*(list_of_parts(sizes[p], counts[p]) for p in sizes), strict=True)
    rows, weight = dict(zip(sizes, numbers, strict=True)), dict(zip(sizes, weights, strict=True))
    chosen: dict[str, list[Tensor]] = {plate: [] for plate in sizes}
    of_runs: list[Tensor] = []
    for group in groups:
        lengths = [len(weight[plate]) for plate in group]
        pairs = torch.cartesian_prod(*map(torch.arange, lengths)).reshape(-1, len(group))
        own = dict(zip(group, pairs.unbind(1), strict=True))
        first = torch.zeros(len(pairs), dtype=torch.long)
        for plate in sizes:
            chosen[plate].append(own.get(plate, first))
        of_runs.append(torch.stack([weight[plate][own[plate]] for plate in group]).prod(0))
    if len(groups) > 1:
        of_runs.append(torch.tensor([1.0 - len(groups)], dtype=torch.float64))
        for each in chosen.values():
            each.append(torch.zeros(1, dtype=torch.long))
    parts = {plate: torch.cat(each) for plate, each in chosen.items()}
    return AllRows(
        sizes=dict(sizes),
        counts=dict(counts),
        groups=groups,
        dims=dims,
        events=events,
        rows={plate: rows[plate][part] for plate, part in parts.items()},
        weights=torch.cat(of_runs),
        parts=parts,
    )


def _groups(
    plates: Mapping[str, int], dims: Mapping[str, Mapping[str, int]]
) -> tuple[tuple[str, ...], ...]:
    """The plates, with those together that are around one site, or are linked by others."""
    groups = [{plate} for plate in plates]
    for around in dims.values():
        meeting = [group for group in groups if group & around.keys()]
        if len(meeting) > 1:
            groups = [group for group in groups if group not in meeting]
            groups.append(set().union(*meeting))
    return tuple(tuple(plate for plate in plates if plate in group) for group in groups)
