"""One line about a row of benchmarks.multimodal."""

from __future__ import annotations

from benchmarks.multimodal.judge import class_of, counted
from benchmarks.posteriors.store import Row
from benchmarks.posteriors.text import count, guide, number, seconds

__all__ = ["line", "share"]


def share(value: float | None) -> str:
    """A share in whole percent; a dash where there is none."""
    return "–" if value is None else f"{value:.0%}"


def line(row: Row) -> str:
    """What is printed when a row is done."""
    head = f"{row['target']}, {row['method']} {row.get('settings') or ''}".rstrip()
    head += f", seed {row['seed']}: "
    if row["status"] != "ok":
        return head + row["error"]
    return head + (_fit(row) if row["method"] == "fit" else _nested(row))


def _fit(row: Row) -> str:
    errors = counted(row)
    found = {True: "clean", False: "not clean", None: "not made"}[row["clean"]]
    return (
        f"{class_of(row)}, verdict {row['verdict']}; {guide(row)}, log Z"
        f" {number(row['log_evidence'], 3)} (off by {number(row['log_z_error'], 3)}), means off by"
        f" {number(errors['mean_error'])} sd, sds by {share(errors['sd_error'])}, modes"
        f" {share(errors['modes'])}, k-hat {number(row['khat'])}, search {found},"
        f" {count(row['gradient_evaluations'])} gradients in"
        f" {count(row['batched_evaluations'])} batches, {seconds(row['cpu_time'])} CPU s,"
        f" {seconds(row['wall_time'])} s"
    )


def _nested(row: Row) -> str:
    return (
        f"log Z {number(row['log_evidence'], 3)} ± {number(row['log_evidence_se'], 3)} (off by"
        f" {number(row['log_z_error'], 3)}), {count(row['evaluations'])} evaluations,"
        f" {seconds(row['cpu_time'])} CPU s, {seconds(row['wall_time'])} s"
    )
