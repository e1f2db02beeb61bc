"""What ``print(fit)`` says: the numbers, what they mean, and what to try next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from textwrap import indent

from nfvi.fit.diagnostics import KHAT_LIMIT, Diagnostics
from nfvi.fit.path import ClimbPath
from nfvi.fit.restarts import Restart
from nfvi.fit.restarts_text import restart_lines, spread
from nfvi.fit.verdict import GOOD, NOT_TRUSTED, Findings, Verdict, judge
from nfvi.guides import Base, Normal, StudentT
from nfvi.utils import WIDTH, align, filled, plus_minus, wrapped

__all__ = ["FitReport", "advice", "describe", "number_rows"]

# Of the efficiency: above it most draws weigh alike, and a high k-hat is that of a few in tails.
CLOSE = 0.5
# Steps for a guide that took fewer, such as a Gaussian's none.
FURTHER = 1_000
NOT_SEARCHED = (
    "No search was made for mass that the guide misses, and none of these numbers can see a mode"
    " that it misses"
)


@dataclass(frozen=True)
class FitReport:
    """What a text says of a fit, in numbers and words; see :class:`nfvi.Fit`.

    Attributes:
        formula: of the guide.
        base: of the guide.
        dim: d.
        target: its name.
        seed: of the fit.
        init: where the guide began.
        steps: of the optimiser.
        n_mc: draws of the first step for each restart, and of the last.
        gradient_evaluations: points at which the target's gradient was taken.
        batched_evaluations: batches in which it was taken.
        wall_time: seconds.
        stopped: why the fit ended.
        restarts: all of them.
        rising: whether the ELBO still rose at the end.
        path: the rungs of a climb, or ``None``.
        findings: how good the guide is; ``None`` where that is not known.
        shell: whether advice names options of the command line in place of methods and arguments.
        rows: of data in a step, and in all; ``None`` where a step takes all there is.
    """

    formula: str
    base: Base
    dim: int
    target: str
    seed: int
    init: str
    steps: int
    n_mc: tuple[int, int]
    gradient_evaluations: int
    batched_evaluations: int
    wall_time: float
    stopped: str
    restarts: tuple[Restart, ...]
    rising: bool
    path: ClimbPath | None
    findings: Findings | None
    shell: bool = False
    rows: tuple[int, int] | None = None


def describe(fit: FitReport) -> str:
    """The text of a fit, in lines of at most 88 columns."""
    lines = [
        *_header(fit),
        *_path(fit.path),
        *(line for text in restart_lines(fit.restarts) for line in wrapped(text)),
    ]
    if fit.findings is None:
        return "\n".join([*lines, *wrapped("no diagnostics: load it with target= to compute them")])
    numbers = [*_numbers(fit.findings), *_all_rows(fit)]
    return "\n".join([*lines, "", *numbers, "", *_advice(fit, fit.findings)])


def _path(path: ClimbPath | None) -> list[str]:
    """The rungs of NFVI("auto")."""
    if path is None:
        return []
    table = indent(path.table(WIDTH - 2), "  ")
    return ["", *table.splitlines(), *wrapped(path.describe())]


def _header(fit: FitReport) -> list[str]:
    how = {
        "steps": "all steps done",
        "converged": "converged: the ELBO had stopped rising",
        "interrupted": "interrupted" + ("; refine() continues" if _goes_on(fit) else ""),
        "auto": "the formula was found by the climb below",
    }
    return [
        *filled(
            f"NFVI {fit.formula!r} on {fit.target}, d = {fit.dim}, base {fit.base}, seed {fit.seed}"
        ),
        *wrapped(
            f"{_course(fit)} {fit.gradient_evaluations:,} gradients {_of_what(fit)} in"
            f" {fit.batched_evaluations:,} batches, {fit.wall_time:.1f} s"
            f" ({how.get(fit.stopped, fit.stopped)})"
        ),
    ]


def _of_what(fit: FitReport) -> str:
    return "of the rows of a step, or at the start of all," if fit.rows else "of the target"


def _course(fit: FitReport) -> str:
    """Where the fit started and how long it went on; of a climb, that of the rung that was kept."""
    rows = f" and {fit.rows[0]:,} of {fit.rows[1]:,} rows" if fit.rows else ""
    steps = f"{fit.steps:,} steps of {_draws(fit)} draws{rows}"
    steps = steps if fit.steps else "no optimiser steps"
    if fit.path is not None:
        return f"rung {fit.path.best + 1} of {len(fit.path)}, with {steps}; in all"
    return f"{steps}," if fit.init == "zeros" else f"init {fit.init}, {steps},"


def _draws(fit: FitReport) -> str:
    first, last = fit.n_mc
    return f"{first:,} to {last:,}" if last > first else f"{first:,}"


def number_rows(findings: Findings) -> list[tuple[str, str, str]]:
    """What is known of a fit in numbers: name, value, and what that means."""
    d = findings.diagnostics
    outside = "some draws fall where the target is 0" if d.elbo == -math.inf else ""
    return [
        ("ELBO", plus_minus(d.elbo, d.elbo_se), outside or "log Z − KL(q ‖ p), nats"),
        *_kl(d, findings.log_normalizer),
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


def _numbers(findings: Findings) -> list[str]:
    d = findings.diagnostics
    table = align(["", "", ""], number_rows(findings), left=3, width=WIDTH - 2)
    lines = indent(table, "  ").splitlines()[1:]  # without titles
    if d.not_finite:
        lines += wrapped(
            f"{d.not_finite:,} of {d.draws:,} draws had no finite density: they are left out of the"
            " ELBO and have weight 0"
        )
    return lines


def _all_rows(fit: FitReport) -> list[str]:
    return wrapped(f"These numbers are of all {fit.rows[1]:,} rows.") if fit.rows else []


def _kl(d: Diagnostics, known: float | None) -> list[tuple[str, str, str]]:
    """KL(q ‖ p) where log Z is known, or importance sampling estimates it well."""
    if known is not None:
        kl = plus_minus(known - d.elbo, d.elbo_se)
        return [("KL(q ‖ p)", kl, f"log Z − ELBO, with the exact log Z of {known:.4f}")]
    if d.khat < KHAT_LIMIT and math.isfinite(d.elbo):
        kl = plus_minus(d.log_evidence - d.elbo, d.elbo_se)
        return [("KL(q ‖ p)", kl, "log evidence − ELBO, as far as the draws can see")]
    return []


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
    return f"{khat:.2f}", "over 1: mass is missed, or tails are too light"


def advice(fit: FitReport, found: Findings) -> list[str]:
    """The verdict, what to try next, and what was searched for missed mass: a text each."""
    verdict = judge(found, shell=fit.shell)
    missed = _not_searched(fit) if found.missed is None else found.missed.describe()
    texts = str(verdict), _next(fit, found, verdict), *spread(fit.restarts, shell=fit.shell), missed
    return list(filter(None, texts))


def _advice(fit: FitReport, found: Findings) -> list[str]:
    return [line for text in advice(fit, found) for line in wrapped(text)]


def _not_searched(fit: FitReport) -> str:
    return f"{NOT_SEARCHED}." if fit.shell else f"{NOT_SEARCHED}: fit.search() looks for it."


def _next(fit: FitReport, found: Findings, verdict: Verdict) -> str:
    """What to try next."""
    d = found.diagnostics
    if verdict.word == GOOD:
        return _more_steps(fit).strip()
    if found.improper:
        return ""
    if found.misses_mass:
        return f"Try {_other_start(fit)}."
    if d.khat >= KHAT_LIMIT and d.efficiency >= CLOSE:
        return (
            "Most draws weigh alike and a few far more: the tails of the guide are lighter than the"
            " target's. Means and sds of the guide may be good all the same. Try"
            f" {_first(fit)}{_other_base(fit)}, or more layers."
        )
    if verdict.word == NOT_TRUSTED:
        return f"Try {_first(fit)}{_richer(fit)}, or {_other_base(fit)}.{_more_steps(fit)}"
    return f"{_closer(fit)}{_more_steps(fit)}".strip()


def _closer(fit: FitReport) -> str:
    """What to try where weighted draws will do."""
    if fit.path is None or fit.stopped.startswith("the budget"):
        what = f"{_first(fit)}{_richer(fit)}"
        return f"{what[0].upper()}{what[1:]} would bring it closer."
    if fit.shell or fit.rising:
        return ""
    if not _goes_on(fit):
        return "NFVI('monotone*3').fit(target, init='auto') fits a flow, which may come closer."
    return f"fit.refine({max(fit.steps, FURTHER):_}) goes on from here, and may bring it closer."


def _goes_on(fit: FitReport) -> bool:
    """Whether there is a method that goes on: refine has none for Gaussians that a climb mixed."""
    mixed = fit.path is not None and fit.path[fit.path.best].components > 1 and not fit.steps
    return not (fit.shell or mixed)


def _auto(fit: FitReport) -> str:
    return "the formula auto" if fit.shell else 'NFVI("auto")'


def _first(fit: FitReport) -> str:
    """What to try before all else; nothing after a climb."""
    return f"{_auto(fit)}, " if fit.path is None else ""


def _larger_budget(fit: FitReport) -> str:
    return "a larger --budget" if fit.shell else "a larger budget"


def _other_start(fit: FitReport) -> str:
    """What finds mass that is missed."""
    if fit.path is None:
        return f"{_auto(fit)}, which takes what a search finds into a mixture"
    if fit.stopped.startswith("the budget"):
        return _larger_budget(fit)
    if fit.shell:
        return "another --seed, or --nuts beside it"
    return "another seed, or nuts(target) from several starting points beside it"


def _richer(fit: FitReport) -> str:
    """What to try next, which after a climb that was cut off is to let it go on."""
    if fit.path is not None and fit.stopped.startswith("the budget"):
        return _larger_budget(fit)
    return "more layers or a richer formula"


def _more_steps(fit: FitReport) -> str:
    """The advice to go on, where the ELBO still rose."""
    if not fit.rising:
        return ""
    more = max(fit.steps // 2, 1)
    how = f"--steps {fit.steps + more}" if fit.shell else f"fit.refine({more})"
    return f" The ELBO still rises: more steps, {how}, will help too."


def _other_base(fit: FitReport) -> str:
    base = fit.base
    if fit.path is not None:
        # "auto" takes no base.
        again = "" if isinstance(base, Normal) else "another seed, or "
        df = 3 if isinstance(base, StudentT) and base.df <= 5 else 5
        if fit.shell:
            again = again.replace("seed", "--seed")
            return f'{again}heavier tails, as in "{fit.formula}" --base "studentt(df={df})"'
        return f'{again}heavier tails, as in NFVI(str(fit.formula), base="studentt(df={df})")'
    if isinstance(base, Normal) and fit.shell:
        return 'a base with heavier tails (--base "studentt(df=5)" or --base laplace)'
    if isinstance(base, Normal):
        return 'a base with heavier tails (base="studentt(df=5)" or "laplace")'
    return "another base (normal, laplace, studentt)"
