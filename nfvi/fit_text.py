"""What ``print(fit)`` says: the numbers, what they mean, and what to try next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfvi.diagnostics import KHAT_LIMIT
from nfvi.text_table import align, short

if TYPE_CHECKING:
    from nfvi.fit import Fit

__all__ = ["describe", "summarize"]

QUANTILES = (0.05, 0.5, 0.95)
SPREAD = 0.3


def describe(fit: Fit) -> str:
    """The text of a fit."""
    lines = [_header(fit), *_restarts(fit)]
    if fit.target is not None or fit._diagnostics is not None:
        lines += [*_numbers(fit), *_advice(fit)]
    else:
        lines += ["no diagnostics: load it with target= to compute them"]
    return "\n".join(lines)


def _header(fit: Fit) -> str:
    name = fit.settings["target"]
    how = {"steps": "all steps done", "interrupted": "interrupted; refine() goes on"}
    return (
        f"NFVI {str(fit.formula)!r} on {name}, d = {fit.dim}, base {fit.guide.base}, seed"
        f" {fit.seed}\n"
        f"  {fit.steps} steps of {fit.settings['n_mc']} draws,"
        f" {fit.gradient_evaluations:,} gradients of the target, {fit.wall_time:.1f} s"
        f" ({how.get(fit.stopped, fit.stopped)})"
    )


def _restarts(fit: Fit) -> list[str]:
    if len(fit.restarts) == 1 and not fit.restarts[0].skipped:
        return []
    words = []
    for restart in fit.restarts:
        notes = ["tempered"] if restart.tempered else []
        notes += [f"{restart.skipped} steps skipped"] if restart.skipped else []
        notes += ["dropped"] if restart.dropped else []
        notes += ["kept"] if restart.best else []
        words.append(f"{restart.elbo:.3f}" + (f" ({', '.join(notes)})" if notes else ""))
    return [f"  restarts, final ELBO: {'; '.join(words)}"]


def _numbers(fit: Fit) -> list[str]:
    d = fit.diagnostics
    rows = [
        ("ELBO", f"{d.elbo:.4f} ± {d.elbo_se:.4f}", "log Z − KL(q ‖ p), nats; higher is better"),
        ("k-hat", f"{d.khat:.2f}", _khat_word(d.khat)),
        (
            "IS efficiency",
            f"{d.efficiency:.1%}",
            f"{d.draws:,} draws are worth {d.ess:,.0f} after weighting",
        ),
        (
            "log evidence",
            f"{d.log_evidence:.4f} ± {d.log_evidence_se:.4f}",
            "log Z by importance sampling" + ("" if d.khat < KHAT_LIMIT else "; not reliable here"),
        ),
    ]
    known = fit.target.log_normalizer if fit.target is not None else None
    if known is not None:
        rows.append(("KL(q ‖ p)", f"{known - d.elbo:.4f}", f"exact, since log Z = {known:.4f}"))
    lines = [f"  {name:<13}  {value:<20}  {meaning}" for name, value, meaning in rows]
    if d.not_finite:
        lines.append(
            f"  {d.not_finite} of {d.draws:,} draws had no finite density and were left out"
        )
    return lines


def _khat_word(khat: float) -> str:
    if khat < 0.5:
        return "importance weights are well behaved"
    if khat < KHAT_LIMIT:
        return "importance weights can be used"
    if khat < 1:
        return f"over {KHAT_LIMIT}: weighted results are not reliable"
    return "over 1: the guide misses part of the target, or has much lighter tails"


def _advice(fit: Fit) -> list[str]:
    found = fit.diagnostics
    lines = []
    if found.khat >= KHAT_LIMIT:
        lines.append(
            "Not to be trusted yet. Try more layers or a richer formula, a base with heavier"
            ' tails (base="studentt(df=5)"), or more steps: fit.refine(2000).'
        )
    elif found.efficiency < 0.1:
        lines.append("Few draws count after weighting; a richer formula or more steps would help.")
    else:
        lines.append(
            "Means and sds of the guide are usable; importance_resample() corrects what is left."
        )
    elbos = [r.elbo for r in fit.restarts if not r.dropped and math.isfinite(r.elbo)]
    if len(elbos) > 1 and max(elbos) - min(elbos) > SPREAD:
        lines.append(
            f"The restarts differ by {max(elbos) - min(elbos):.2f} nats, as when some of them lost"
            " a mode: anneal longer (anneal=0.6) or use more restarts."
        )
    lines.append(
        "None of these numbers can see a mode that the guide misses: compare with NUTS from"
        " several starting points."
    )
    return [f"  {line}" for line in lines]


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
