"""What ``print(fit)`` says of a fit to data: the numbers, what they mean, and what to beware of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nfvi.density.quality import Likelihood, Quality
from nfvi.density.validation import ValidationRecord
from nfvi.utils import filled, plus_minus, wrapped

__all__ = ["DensityReport", "advice", "describe", "number_rows"]

# Nats a row between training and held-out rows that are worth a word, if they are no accident.
GAP = 0.05
# Standard errors beyond which a difference is no accident.
SURE = 2.0
CAVEAT = (
    "A likelihood is a mean over rows like these: it says little about the tails, or about places"
    " where no rows are."
)


@dataclass(frozen=True)
class DensityReport:
    """What a text says of a fit to data, in numbers and words; see :class:`nfvi.DensityFit`.

    Attributes:
        formula: of the guide.
        base: of the guide.
        dim: d.
        context_dim: c; 0 without a context.
        seed: of the fit.
        steps: of the optimiser.
        batch_size: rows a step.
        wall_time: seconds.
        stopped: why the fit ended.
        quality: log-likelihood of the training and of the held-out rows.
        validation: the looks at the held-out rows, or ``None``.
        notes: what was said of the rows, see :func:`nfvi.density.notes.notes_on`.
        shell: whether advice names options of the command line in place of methods and arguments.
    """

    formula: str
    base: str
    dim: int
    context_dim: int
    seed: int
    steps: int
    batch_size: int
    wall_time: float
    stopped: str
    quality: Quality
    validation: ValidationRecord | None
    notes: tuple[str, ...] = ()
    shell: bool = False


def describe(fit: DensityReport) -> str:
    """The text of a fit to data, in lines of at most 88 columns."""
    lines = [line for text in advice(fit) for line in wrapped(text)]
    return "\n".join([*_header(fit), "", *_numbers(fit.quality), "", *lines])


def advice(fit: DensityReport) -> list[str]:
    """What there is to beware of in the rows and in the fit: a text each."""
    notes = [f"{note[:1].upper()}{note[1:]}." for note in fit.notes]
    beside = "" if fit.shell else " Set draws beside the data, fit.sample(n)."
    return [*notes, *_verdict(fit), CAVEAT + beside]


def _header(fit: DensityReport) -> list[str]:
    later = "" if fit.shell else "; refine() continues"
    how = {"steps": "all steps done", "interrupted": f"interrupted{later}"}
    rows = fit.quality.train.rows
    given = f", context of {fit.context_dim}" if fit.context_dim else ""
    epochs = fit.steps * fit.batch_size / rows
    lines = [
        *filled(
            f"NFVI {fit.formula!r} on data, d = {fit.dim}{given}, base {fit.base}, seed {fit.seed}"
        ),
        *wrapped(
            f"{fit.steps:,} steps of {fit.batch_size:,} rows ({epochs:,.4g} epochs),"
            f" {fit.wall_time:.1f} s ({how.get(fit.stopped, fit.stopped)})"
        ),
    ]
    looks = fit.validation
    if looks is not None:
        lines += wrapped(
            f"kept: the state after step {looks.best_step:,}, the best on the held-out rows of"
            f" {len(looks.steps):,} looks"
        )
    return lines


def number_rows(quality: Quality) -> list[tuple[str, str, str, str]]:
    """Which rows, their log-likelihood, that under a Gaussian, and how many they are."""
    found = [("training", quality.train)]
    if quality.held_out is not None:
        found.append(("held out", quality.held_out))
    return [(name, *_cells(one), f"{one.rows:,}") for name, one in found]


def _numbers(quality: Quality) -> list[str]:
    rows = number_rows(quality)
    widths = [max(len(row[i]) for row in rows) for i in (1, 2)]
    lines = ["  log-likelihood in nats a row, and that of a Gaussian with full covariance:"]
    return lines + [
        f"  {name:<9}  {value:>{widths[0]}}  Gaussian {gaussian:>{widths[1]}}  {count} rows"
        for name, value, gaussian, count in rows
    ]


def _cells(one: Likelihood) -> tuple[str, str]:
    gaussian = f"{one.gaussian:.3f}" if math.isfinite(one.gaussian) else "- (singular)"
    return plus_minus(one.mean, one.se), gaussian


def _verdict(fit: DensityReport) -> list[str]:
    train, held_out = fit.quality.train, fit.quality.held_out
    if held_out is None:
        return [
            "No rows were held out, so nothing here can show overfitting: the training likelihood"
            f" rises with every layer. {_option(fit, 'validation=0.1')} holds out a tenth."
        ]
    said = []
    gap = train.mean - held_out.mean
    error = math.hypot(train.se, held_out.se)
    decay = "" if fit.shell else " weight decay (optimizer=torch.optim.AdamW)"
    if not gap <= max(GAP, SURE * error):
        said.append(
            f"Training rows are {gap:.2g} nats likelier than held-out ones: it overfits. Fewer or"
            f" smaller layers,{decay} or more rows would help."
        )
    fair = "" if fit.shell else ", fit.score(x)"
    ahead = held_out.mean - held_out.gaussian
    if ahead <= 0:
        said.append(
            "On the held-out rows a Gaussian with full covariance does as well or better: this"
            " formula is more than these rows can carry, or has not been fitted for long enough."
        )
    said.append(
        "The state that did best on the held-out rows was kept, so their number is a little too"
        f" high; rows that the fit never saw give a fair one{fair}."
    )
    return said + _still_rising(fit)


def _option(fit: DensityReport, argument: str) -> str:
    """An argument, or the option of the command line that is called like it."""
    return f"--{argument.replace('=', ' ')}" if fit.shell else argument


def _still_rising(fit: DensityReport) -> list[str]:
    """The advice to go on, where the best of many looks is the last one and still better."""
    looks = fit.validation
    if looks is None or len(looks.steps) < 10 or looks.best < len(looks.steps) - 1:
        return []
    before = float(looks.log_likelihood[-1 - len(looks.steps) // 5])
    gain = float(looks.log_likelihood[-1]) - before
    if not gain > 0.01:
        return []
    return [
        f"The held-out likelihood rose by {gain:.2g} nats in the last fifth: more epochs,"
        f" {'--epochs' if fit.shell else 'fit.refine(epochs)'}, will help."
    ]
