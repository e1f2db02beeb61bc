"""The Markdown page of benchmarks.multimodal."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.multimodal import tables
from benchmarks.multimodal.catalogue import SMALL
from benchmarks.multimodal.judge import class_of
from benchmarks.multimodal.literature import FROM_FILES, LITERATURE
from benchmarks.multimodal.nested import BOX, LEFT
from benchmarks.posteriors.page import markdown_table
from benchmarks.posteriors.store import Row

__all__ = ["DEFAULT", "page"]

DEFAULT = "auto"
"""The settings of fits without a budget."""
GROUPS: dict[str, Sequence[str]] = {
    "small, with exact answers": tuple(SMALL),
    "of the literature": (*LITERATURE, *FROM_FILES),
}

HEAD = """\
# Targets of several modes and narrow parts

Written by `python -m benchmarks.multimodal`; nothing on this page is typed in. A fit is
`NFVI("auto", seed=s).fit(target)` with nothing else set. The target is a log-density and no more:
the fit does not see its log Z, means, modes or sampler.
"""

RULES = """\
## What is counted

- `right`: no mean is off by more than 0.2 sd, no sd by more than 20 %, log Z by no more than 0.1
  nats. Weighted draws count where the verdict is "usable", plain ones elsewhere.
- `said`: not right, and the verdict is "not to be trusted".
- `SILENT`: not right, and the verdict is "good" or "usable". This is what must not happen.
- `crashed`: the fit ended in an error. `unknown`: there is nothing to compare with.

Errors come from 50 000 draws. Of the funnels only the neck is compared: the sd of the rest is an
average over tails that few draws meet. Of Brownian motion log Z is known by quadrature, and means
are not compared. Of Sonar log Z comes from importance sampling, with its standard error added to
the limit. Of the Cox process (lgcp) nothing is known.

"Modes" is the mass of those that were found: that have at least a tenth of their mass among the
draws. Double wells are counted coordinate by coordinate, and so are spikes in slabs.
"""

WRONG = "## What is not right\n\nThe silent ones stand first.\n"
ANSWERS = """\
## Target by target

The worst over the seeds. k-hat is what `print(fit)` shows. A search is clean where it finds at most
3 % of the mass outside the guide.
"""
ELBOS = """\
## ELBOs of the literature's targets

That of the middle seed, and the lowest. The log evidence is that of importance sampling by the same
fit. The last column is log Z − ELBO = KL(q ‖ p), with the log evidence where log Z is not known.
"""
COSTS = """\
## What they cost

Medians over the seeds, of the fit and its verdict together. A batch is one evaluation of the
gradient at many points, or of values in a round of mixtures of Gaussians. "Values" are points at
which log p is taken without its gradient: the wide draws of the last search, and those of such
rounds. The machine did other work at the same time, so look at CPU seconds first.
"""
NEEDLES = """\
## What cannot be found

If you know where a narrow mode is, start a fit or chains there. In ten dimensions no search finds
it.

Take N(0, I) and a second Gaussian of sd 0.1, 6 sds away. A search finds the second one only if a
wide draw falls so near that log p rises towards it. In two dimensions thousands of draws do, in
five some, and in ten fewer than one in a billion. A search makes 131 072 draws there, and a million
would not be enough. Nothing in the wide part points to the needle either. So fits of the targets
below find it only by luck, and still say "good".

`modes5_rand_d10` has such a needle too: one of its five modes, of a third of the mass, is narrow
and lies among wide ones. `fit.search(draws=2_097_152)` did not meet it with five seeds.

Two narrow modes without a wide part are found (`two_narrow_d10`): from everywhere, log p rises
towards one of them.

The last column is how many of 131 072 wide draws are expected to meet it.
"""
NESTED = f"""\
## Compared with nested sampling

dynesty with its default settings, under a uniform prior on a box of {BOX:g} sds to each side of the
mean: it knows where all of the mass lies, and a fit does not. It takes values point by point, so
that its seconds say less than its number of values. The evaluations of a fit are its gradients,
the wide draws of its last search and the values of its mixtures of Gaussians; a batch is many of
them at once. Errors are the worst over the seeds, costs their median.

The error of nested sampling falls with the root of its live points, and its values grow with their
number. So the last column says how many values it would take for the error of the fits: values ×
(its own error / theirs)². Theirs is the worst error of the seeds, or the standard error that they
report where that is larger. Runs with more live points end when {LEFT:g} of log Z is left in them,
and have the smaller error for their values; the sentence below takes the better of both.
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page, from the rows of all methods and settings."""
    rows = sorted(rows, key=_place)
    fits = [row for row in rows if row["method"] == "fit"]
    plain = [row for row in fits if row["settings"] == DEFAULT]
    parts = [HEAD, _held(plain), _environments(rows), RULES]
    parts += _fits(plain)
    for settings in dict.fromkeys(row["settings"] for row in fits):
        if settings != DEFAULT:
            some = [row for row in fits if row["settings"] == settings]
            title = f"## With the settings `{settings}`\n"
            parts += [title, _held(some), *_section("", _sums(some))]
    nested = [row for row in rows if row["method"] == "nested"]
    parts += [NEEDLES, markdown_table(*tables.needles())]
    if nested:
        parts += _section(NESTED, tables.nested(nested, plain))
        parts.append(tables.nested_in_words(nested, plain))
    return "\n".join(part for part in parts if part)


def _place(row: Row) -> tuple[int, int]:
    """Where a row stands: in the order of the lists, and of the seeds."""
    names = [name for group in GROUPS.values() for name in group]
    return names.index(row["target"]), row["seed"]


def _fits(rows: Sequence[Row]) -> list[str]:
    return [
        *_section("## In short\n", _sums(rows)),
        *_section(WRONG, tables.not_right(rows)),
        *_section(ANSWERS, tables.answers(rows)),
        *_section(ELBOS, tables.elbos(_of_literature(rows))),
        *_section(COSTS, tables.costs(rows)),
    ]


def _of_literature(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["target"] not in SMALL]


def _sums(rows: Sequence[Row]) -> tables.Table:
    return tables.classes(rows, GROUPS) if rows else ([], [])


def _section(text: str, table: tables.Table) -> list[str]:
    """A text and its table; nothing where the table is empty."""
    return [text, markdown_table(*table)] if table[1] else []


def _held(rows: Sequence[Row]) -> str:
    """How many fits there are, of how many targets, and of which seeds: no more than was run."""
    everything = sum(map(len, GROUPS.values()))
    if not rows:
        return f"**No fit of the {everything} targets has been run yet.**\n"
    targets = {row["target"] for row in rows}
    seeds = {row["seed"] for row in rows}
    silent = sum(class_of(row) == "SILENT" for row in rows)
    whole = everything * len(seeds)
    part = "" if len(rows) == whole else " **It is not the whole list.**"
    return (
        f"This is what {_of(len(rows), 'fit')} gave, on {len(targets)} of {everything} targets,"
        f" with {_of(len(seeds), 'seed')}; {silent} of them"
        f" {'is' if silent == 1 else 'are'} silently wrong.{part}\n"
    )


def _of(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _environments(rows: Sequence[Row]) -> str:
    """Where and when rows were measured."""
    lines = []
    for method, label in {"fit": "Fits", "nested": "Nested sampling"}.items():
        places = dict.fromkeys(row["environment"] for row in rows if row["method"] == method)
        if places:
            lines.append(f"- {label}: {'; and '.join(places)}.")
    return "\n".join([*lines, ""]) if lines else ""
