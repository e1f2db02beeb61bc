"""What ``print(fit)`` says: the numbers, what they mean, and what to try next."""

from __future__ import annotations

import math
from textwrap import indent, wrap
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfvi.fit.diagnostics import KHAT_LIMIT
from nfvi.fit.restarts_text import restart_lines, spread
from nfvi.guides import Normal, StudentT
from nfvi.utils import align, short

if TYPE_CHECKING:
    from nfvi.fit.fit import Fit

__all__ = ["describe", "plus_minus", "summarize", "wrapped"]

WIDTH = 99
QUANTILES = (0.05, 0.5, 0.95)
# Shares of efficiency where the advice changes, as docs/diagnostics.md has it: above the first
# the guide will do by itself, below the second most draws are wasted.
CLOSE, ROUGH = 0.5, 0.1
# In nats: what no plot shows is not worth more steps.
LEAST_GAIN = 0.01
CAVEAT = (
    "None of these numbers can see a mode that the guide misses: compare with NUTS from several"
    " starting points, compare(fit, nuts(target))."
)


def describe(fit: Fit) -> str:
    """The text of a fit, in lines of less than 100 columns."""
    lines = [
        *_header(fit),
        *_path(fit),
        *(line for text in restart_lines(fit) for line in wrapped(text)),
    ]
    if fit.target is not None or fit._diagnostics is not None:
        lines += ["", *_numbers(fit), "", *_advice(fit)]
    else:
        lines += wrapped("no diagnostics: load it with target= to compute them")
    return "\n".join(lines)


def _path(fit: Fit) -> list[str]:
    """The rungs of NFVI("auto")."""
    return [] if fit.path is None else ["", *indent(str(fit.path), "  ").splitlines()]


def wrapped(text: str) -> list[str]:
    """A paragraph in indented lines of less than 100 columns."""
    return wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _header(fit: Fit) -> list[str]:
    how = {
        "steps": "all steps done",
        "converged": "converged: the ELBO had stopped rising",
        "interrupted": "interrupted; refine() goes on",
        "auto": "the formula was found by the climb below",
    }
    return [
        f"NFVI {str(fit.formula)!r} on {fit.settings['target']}, d = {fit.dim},"
        f" base {fit.guide.base}, seed {fit.seed}",
        *wrapped(
            f"{_course(fit)} {fit.gradient_evaluations:,} gradients of the target in"
            f" {fit.batched_evaluations:,} batches, {fit.wall_time:.1f} s"
            f" ({how.get(fit.stopped, fit.stopped)})"
        ),
    ]


def _course(fit: Fit) -> str:
    """Where the fit started and how long it went on; of a climb, that of the rung that was kept."""
    steps = f"{fit.steps:,} steps of {_draws(fit)} draws" if fit.steps else "no optimiser steps"
    if fit.path is not None:
        return f"rung {fit.path.best + 1} of {len(fit.path)}, with {steps}; in all"
    init = fit.settings.get("init", "zeros")
    return f"{steps}," if init == "zeros" else f"init {init}, {steps},"


def _draws(fit: Fit) -> str:
    first, last = fit.settings["n_mc"], int(fit.history.n_mc[-1]) if len(fit.history) else 0
    return f"{first:,} to {last:,}" if last > first else f"{first:,}"


def _numbers(fit: Fit) -> list[str]:
    d = fit.diagnostics
    outside = "; some draws fall where the target is 0" if d.elbo == -math.inf else ""
    rows = [
        ("ELBO", plus_minus(d.elbo, d.elbo_se), f"log Z − KL(q ‖ p), nats{outside}"),
        *_kl(fit),
        ("k-hat", *_khat(d.khat)),
        (
            "IS efficiency",
            f"{d.efficiency:.1%}",
            f"{d.draws:,} draws are worth {d.ess:,.0f} after weighting",
        ),
        (
            "log evidence",
            plus_minus(d.log_evidence, d.log_evidence_se),
            "log Z by importance sampling" + ("" if d.khat < KHAT_LIMIT else "; not reliable here"),
        ),
    ]
    width = max(len(value) for _, value, _ in rows)
    lines = [f"  {name:<13}  {value:<{width}}  {meaning}" for name, value, meaning in rows]
    if d.not_finite:
        lines += wrapped(
            f"{d.not_finite:,} of {d.draws:,} draws had no finite density: they are left out of the"
            " ELBO and have weight 0"
        )
    return lines


def _kl(fit: Fit) -> list[tuple[str, str, str]]:
    """KL(q ‖ p) where log Z is known, or importance sampling estimates it well."""
    d = fit.diagnostics
    known = fit.target.log_normalizer if fit.target is not None else None
    if known is not None:
        kl = plus_minus(known - d.elbo, d.elbo_se)
        return [("KL(q ‖ p)", kl, f"log Z − ELBO; log Z = {known:.4f} is known for this target")]
    if d.khat < KHAT_LIMIT and math.isfinite(d.elbo):
        kl = plus_minus(d.log_evidence - d.elbo, d.elbo_se)
        return [("KL(q ‖ p)", kl, "log evidence − ELBO: an estimate, of what the draws can see")]
    return []


def plus_minus(value: float, error: float) -> str:
    """A value with its standard error, to two digits of the latter and at most six decimals."""
    if not math.isfinite(value):
        return f"{value:.0f}"
    if not (math.isfinite(error) and error >= 5e-7):
        return f"{round(value, 4) + 0.0:.4f}"  # + 0.0 turns -0.0 into 0.0
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _khat(khat: float) -> tuple[str, str]:
    if khat == -math.inf:
        return "none", "the largest weights are equal, so no tail is to fear"
    if khat == math.inf:
        return "-", "a few draws carry all the weight"
    if khat < 0.5:
        return f"{khat:.2f}", "under 0.5: importance weights are well behaved"
    if khat < KHAT_LIMIT:
        return f"{khat:.2f}", f"under {KHAT_LIMIT}: importance weights can be used"
    if khat < 1:
        return f"{khat:.2f}", f"over {KHAT_LIMIT}: weighted results are not reliable"
    return f"{khat:.2f}", "over 1: the guide misses a part, or its tails are too light"


def _advice(fit: Fit) -> list[str]:
    return [line for text in (_verdict(fit), *spread(fit), CAVEAT) for line in wrapped(text)]


def _verdict(fit: Fit) -> str:
    """What the diagnostics allow, and what to try next."""
    found = fit.diagnostics
    if found.khat >= KHAT_LIMIT and found.efficiency >= CLOSE:
        return (
            "Not to be trusted yet. Most draws weigh alike and a few far more: the tails of the"
            " guide are lighter than the target's. Weighted results are unreliable; means and sds"
            f" of the guide may be good all the same. Try {_other_base(fit)}, or more layers."
        )
    if found.khat >= KHAT_LIMIT:
        return (
            f"Not to be trusted yet. Try {_richer(fit)}, or {_other_base(fit)}.{_more_steps(fit)}"
        )
    if found.efficiency >= CLOSE:
        return (
            "The guide is close to the target wherever its draws fall;"
            " fit.importance_resample(n) corrects what is left."
        )
    if found.efficiency >= ROUGH:
        return (
            "The guide is roughly right: fit.importance_resample(n) is better than fit.sample(n);"
            f" {_richer(fit)} would bring it closer.{_more_steps(fit)}"
        )
    return (
        "Few draws count after weighting: take many for fit.importance_resample(n), or try"
        f" {_richer(fit)}.{_more_steps(fit)}"
    )


def _richer(fit: Fit) -> str:
    """What to try next, which after a climb that was cut off is to let it go on."""
    if fit.path is not None and fit.stopped.startswith("the budget"):
        return "a larger budget"
    return "more layers or a richer formula"


def _more_steps(fit: Fit) -> str:
    """The advice to go on, where the ELBO still rose from the last fifth but one to the last."""
    if not fit.steps:
        return ""
    best = next(r.index for r in fit.restarts if r.best)
    length = max(fit.steps // 5, 1)
    elbo, se = fit.history.elbo[:, best].double(), fit.history.elbo_se[:, best].double()
    gain = float(elbo[-length:].mean() - elbo[-2 * length : -length].mean())
    error = float(se[-2 * length :].square().sum().sqrt()) / length
    if gain <= max(LEAST_GAIN, 3 * error):
        return ""
    return (
        f" The ELBO still rises: more steps, fit.refine({max(fit.steps // 2, 1)}), will help too."
    )


def _other_base(fit: Fit) -> str:
    base = fit.guide.base
    if fit.path is not None:
        # "auto" takes no base.
        again = "" if isinstance(base, Normal) else "another seed, or "
        df = 3 if isinstance(base, StudentT) and base.df <= 5 else 5
        return f'{again}heavier tails, as in NFVI(str(fit.formula), base="studentt(df={df})")'
    if isinstance(base, Normal):
        return 'a base with heavier tails (base="studentt(df=5)" or "laplace")'
    return "another base (normal, laplace, studentt)"


def summarize(sites: dict[str, Tensor]) -> str:
    """A table with a row for each scalar of sites (n, \\*event)."""
    rows = []
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    for name, value in sites.items():
        flat = value.detach().double().cpu().reshape(value.shape[0], -1)
        for i, column in enumerate(flat.T):
            label = name + _index(i, value.shape[1:])
            numbers = [column.mean(), column.std(), *column.quantile(levels)]
            rows.append([label, *(short(float(x)) for x in numbers)])
    header = ["", "mean", "sd", *(f"{100 * q:.0f}%" for q in QUANTILES)]
    return align(header, rows)


def _index(flat: int, shape: torch.Size) -> str:
    if not shape:
        return ""
    place = []
    for size in reversed(shape):
        place.append(flat % size)
        flat //= size
    return f"[{','.join(map(str, reversed(place)))}]"
