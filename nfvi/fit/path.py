"""The way that NFVI("auto") came: one rung for every guide that it tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from nfvi.fit.diagnostics import KHAT_LIMIT
from nfvi.guides import AnyGuide
from nfvi.utils import (
    WIDTH,
    Amount,
    Count,
    Positive,
    align,
    card,
    check_entries,
    filled,
    html_table,
    record_of,
    sparkline,
)

__all__ = ["ClimbPath", "Rung"]

HEADER = ["", "ELBO", "k-hat", "IS eff.", "steps", "batches", "gradients", "seconds"]
KEPT = "> "
ENTRIES = {"rungs": tuple[Any, ...], "best": Count, "reason": str}


@dataclass(frozen=True)
class Rung:
    """One guide on the way, with how good it was and what all had cost until then.

    Attributes:
        formula: of the guide.
        elbo: nats.
        elbo_se: its Monte-Carlo standard error.
        khat: Pareto k-hat.
        efficiency: of importance sampling, in (0, 1].
        log_evidence: by importance sampling, nats.
        steps: optimiser steps taken for this rung; 0 for a Gaussian, which has none.
        batched_evaluations: of the target, one after the other, up to here.
        gradient_evaluations: points at which its gradient was taken, up to here.
        wall_time: seconds, up to here.
        components: of the mixture, or 1.
        base: of the guide.
        guide: the guide; ``None`` after loading from a file.
    """

    formula: str
    elbo: float
    elbo_se: float
    khat: float
    efficiency: float
    log_evidence: float
    steps: int
    batched_evaluations: int
    gradient_evaluations: int
    wall_time: float
    components: int = 1
    base: str = "normal"
    guide: AnyGuide | None = field(default=None, repr=False, compare=False)

    @property
    def gap(self) -> float:
        """log evidence − ELBO: the KL that importance sampling sees (nats)."""
        return self.log_evidence - self.elbo

    def as_dict(self) -> dict[str, Any]:
        """Name -> number or text, without the guide."""
        names = [name for name in self.__dataclass_fields__ if name != "guide"]
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        several = f"{self.components} × " if self.components > 1 else ""
        other = "" if self.base == "normal" else f", base {self.base}"
        return f"{several}{self.formula}{other}"


@dataclass(frozen=True)
class ClimbPath(Sequence[Rung]):
    """Every rung in the order in which it was tried.

    Attributes:
        rungs: all of them.
        best: index of the one that was kept.
        reason: why the climb ended.
        batched_evaluations: of the target in the whole climb, one after the other, with searches
            that led to no rung.
        gradient_evaluations: points at which its gradient was taken, likewise.
        value_evaluations: points at which its value alone was taken to fit mixtures of Gaussians;
            those that judge a rung are not counted, and those of a search are in ``fit.missed``.
    """

    rungs: tuple[Rung, ...]
    best: int
    reason: str
    batched_evaluations: int
    gradient_evaluations: int
    value_evaluations: int = 0

    def __len__(self) -> int:
        return len(self.rungs)

    def __iter__(self) -> Iterator[Rung]:
        return iter(self.rungs)

    @overload
    def __getitem__(self, index: int) -> Rung: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rung, ...]: ...
    def __getitem__(self, index: int | slice) -> Rung | tuple[Rung, ...]:
        return self.rungs[index]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without guides."""
        return {
            "rungs": [rung.as_dict() for rung in self.rungs],
            "best": self.best,
            "reason": self.reason,
            "batched_evaluations": self.batched_evaluations,
            "gradient_evaluations": self.gradient_evaluations,
            "value_evaluations": self.value_evaluations,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClimbPath:
        """The path that :meth:`as_dict` wrote; older files count up to the last rung.

        Raises:
            ValueError: a value is missing or wrong; the message names it.
        """
        counts = {"batched_evaluations": Count, "gradient_evaluations": Count}
        read = check_entries(values, ENTRIES, {**counts, "value_evaluations": Count}, "path")
        narrower = {**counts, "steps": Count, "components": Positive, "wall_time": Amount}
        rungs = tuple(
            record_of(Rung, rung, f"path.rungs[{k}]", without=("guide",), **narrower)
            for k, rung in enumerate(read["rungs"])
        )
        if read["best"] >= len(rungs):
            raise ValueError(
                f"its entry path.best is {read['best']}, and it has {len(rungs)} rungs"
            )
        costs = [read.get(name, getattr(rungs[-1], name)) for name in counts]
        costs.append(read.get("value_evaluations", 0))
        return cls(rungs, read["best"], read["reason"], *costs)

    def __str__(self) -> str:
        return "\n".join([self.table(), *filled(self.describe())])

    def describe(self) -> str:
        """Which rung was kept, and why the climb ended."""
        kept = self.rungs[self.best]
        return f"Kept: {kept}, rung {self.best + 1} of {len(self)}. Ended: {self.reason}."

    def table(self, width: int = WIDTH) -> str:
        """A row for each rung, with ``>`` before the one that was kept.

        Args:
            width: the columns that a line may have.
        """
        return align(HEADER, self._rows(), width=width)

    def _rows(self) -> list[list[str]]:
        return [_row(rung, i == self.best) for i, rung in enumerate(self.rungs)]

    def _repr_html_(self) -> str:
        lead = self.describe()
        curve = sparkline([rung.elbo for rung in self.rungs], "ELBO of each rung")
        return card('NFVI("auto")', lead, html_table(HEADER, self._rows()), curve)


def _row(rung: Rung, kept: bool) -> list[str]:
    khat = f"{rung.khat:.2f}" + ("" if rung.khat < KHAT_LIMIT else " !")
    return [
        f"{KEPT if kept else ' ' * len(KEPT)}{rung}",
        f"{rung.elbo:.4f}",
        khat,
        f"{rung.efficiency:.1%}",
        f"{rung.steps:,}",
        f"{rung.batched_evaluations:,}",
        f"{rung.gradient_evaluations:,}",
        f"{rung.wall_time:.1f}",
    ]
