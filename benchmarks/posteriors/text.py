"""One line about a row of benchmarks.posteriors, and how its numbers are written."""

from __future__ import annotations

import math

from benchmarks.posteriors.store import Row

__all__ = ["bias", "count", "guide", "line", "number", "seconds"]


def bias(value: float | None) -> str:
    """A b², to two digits."""
    if value is None:
        return "–"
    return f"{value:.1e}" if value < 1e-4 or value >= 100 else f"{value:.2g}"


def number(value: float | None, decimals: int = 2) -> str:
    """A number with so many decimals; a dash where there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "NaN")
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number, in thousands; a dash where there is none."""
    return "–" if value is None else f"{round(value):,}"


def seconds(value: float | None) -> str:
    """A time in seconds, with a decimal below ten."""
    return "–" if value is None else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def guide(row: Row) -> str:
    """The formula of a guide, and of how many components a mixture has; old rows do not say."""
    components = row.get("components", 1)
    return f"{components} × {row['formula']}" if components > 1 else row["formula"]


def line(row: Row) -> str:
    """What is printed when a row is done."""
    head = f"{row['target']}, {row['method']} {row.get('settings') or ''}".rstrip()
    head += f", seed {row['seed']}: "
    if row["status"] != "ok":
        return head + row["error"]
    return head + _LINES[row["method"]](row)


def _fit(row: Row) -> str:
    verified = "passed" if row["verify_passed"] else "not passed"
    return (
        f"{guide(row)}, b² {bias(row['b2_raw_worst'])} raw, {bias(row['b2_psis_worst'])} PSIS,"
        f" k-hat {number(row['khat'])}, efficiency {row['efficiency']:.0%}, gap"
        f" {number(row['gap'], 4)}, verify {verified}, {count(row['batched_evaluations'])} batches"
        f" ({count(row['to_accuracy'])} to b² < 0.01), {seconds(row['wall_time'])} s"
    )


def _nuts(row: Row) -> str:
    return (
        f"b² {bias(row['b2_worst'])}, R-hat {number(row['rhat'])}, least ESS {count(row['ess'])},"
        f" {count(row['divergences'])} divergences, {count(row['sequential_evaluations'])}"
        f" sequential gradients ({count(row['to_accuracy'])} to b² < 0.01),"
        f" {seconds(row['wall_time'])} s"
    )


def _gradients(row: Row) -> str:
    return (
        f"{guide(row)}, {count(row['steps'])} steps: ELBO {number(row['elbo_path'], 4)} by the path"
        f" gradient, {number(row['elbo_total'], 4)} by the total one, log Z"
        f" {number(row['log_z'], 4)}"
    )


_LINES = {"fit": _fit, "nuts": _nuts, "gradients": _gradients}
