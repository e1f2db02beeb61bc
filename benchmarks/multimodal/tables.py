"""The tables of the page of benchmarks.multimodal: a header, and cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TypeVar

from benchmarks.multimodal.judge import CLASSES, class_of, counted
from benchmarks.multimodal.needles import NEEDLES, hits
from benchmarks.multimodal.nested import LIVE_POINTS
from benchmarks.multimodal.text import share
from benchmarks.posteriors.store import Row
from benchmarks.posteriors.text import count, guide, number, seconds

__all__ = [
    "Table",
    "answers",
    "classes",
    "costs",
    "elbos",
    "needles",
    "nested",
    "nested_in_words",
    "not_right",
]

Table = tuple[list[str], list[list[str]]]
T = TypeVar("T")


def classes(rows: Sequence[Row], groups: dict[str, Sequence[str]]) -> Table:
    """How many fits of each group of targets are of each class."""
    table = []
    for name, targets in groups.items():
        chosen = [row for row in rows if row["target"] in targets]
        counts = Counter(class_of(row) for row in chosen)
        held = len({row["target"] for row in chosen})
        table.append(
            [name, f"{held} of {len(targets)}", str(len(chosen))]
            + [str(counts[word]) for word in CLASSES]
        )
    return ["targets", "held", "fits", *CLASSES], table


def not_right(rows: Sequence[Row]) -> Table:
    """Every fit that is not right, the silent ones first."""
    bad = [row for row in rows if class_of(row) in ("SILENT", "said", "crashed")]
    bad.sort(key=lambda row: (class_of(row) != "SILENT", row["target"], row["seed"]))
    return ["target", "seed", "class", "verdict", *ERRORS, "why"], [_bad(row) for row in bad]


ERRORS = ["log Z off by", "means off by, sd", "sds off by", "modes"]


def _bad(row: Row) -> list[str]:
    head = [f"`{row['target']}`", str(row["seed"]), class_of(row)]
    if row["status"] != "ok":
        return [*head, "–", "–", "–", "–", "–", row["error"]]
    found = counted(row)
    return [
        *head,
        row["verdict"],
        number(row["log_z_error"]),
        number(found["mean_error"]),
        share(found["sd_error"]),
        share(found["modes"]),
        " ".join(row["reasons"]),
    ]


def answers(rows: Sequence[Row]) -> Table:
    """For each target, the worst over its seeds."""
    header = ["target", "d", "fits", "verdict", *ERRORS, "k-hat", "search clean"]
    table = []
    for target, all_of_it in _by_target(rows):
        done = [row for row in all_of_it if row["status"] == "ok"]
        head = [f"`{target}`", str(done[0]["dim"]) if done else "–"]
        found = [counted(row) for row in done]
        table.append(
            [
                *head,
                _counts(class_of(row) for row in all_of_it),
                _counts(row["verdict"] for row in done),
                number(_worst(row["log_z_error"] for row in done), 3),
                number(_worst(errors["mean_error"] for errors in found)),
                share(_worst(errors["sd_error"] for errors in found)),
                share(_least(errors["modes"] for errors in found)),
                number(_worst((row["khat"] for row in done), signed=True)),
                f"{sum(bool(row['clean']) for row in done)} of {len(done)}",
            ]
        )
    return header, table


def elbos(rows: Sequence[Row]) -> Table:
    """For each target, how far the ELBO lies below log Z, known or as a fit tells it."""
    header = ["target", "fits", "ELBO", "lowest", "log evidence", "log Z", "below it, nats"]
    table = []
    for target, all_of_it in _by_target(rows):
        done = [row for row in all_of_it if row["status"] == "ok"]
        if not done:
            continue
        row = sorted(done, key=lambda row: row["elbo"])[(len(done) - 1) // 2]
        log_z = row["log_evidence"] if row["log_z"] is None else row["log_z"]
        table.append(
            [
                f"`{target}`",
                str(len(done)),
                number(row["elbo"], 3),
                number(min(each["elbo"] for each in done), 3),
                f"{number(row['log_evidence'], 3)} ± {number(row['log_evidence_se'], 3)}",
                number(row["log_z"], 3),
                number(log_z - row["elbo"], 3),
            ]
        )
    return header, table


def costs(rows: Sequence[Row]) -> Table:
    """For each target, medians over its seeds."""
    header = ["target", "guide", "gradients", "batches", "values", "CPU s", "wall s"]
    spent = (
        lambda row: row["gradient_evaluations"],
        lambda row: row["batched_evaluations"],
        _value_evaluations,
    )
    table = []
    for target, all_of_it in _by_target(rows):
        done = [row for row in all_of_it if row["status"] == "ok"]
        if not done:
            continue
        table.append(
            [f"`{target}`", f"`{guide(done[0])}`"]
            + [count(median(map(each, done))) for each in spent]
            + [seconds(median(row[name] for row in done)) for name in ("cpu_time", "wall_time")]
        )
    return header, table


def nested(rows: Sequence[Row], fits: Sequence[Row]) -> Table:
    """Nested sampling beside the fits of the same targets: worst errors, and median costs."""
    header = ["target", "d", "live points", "log Z off by", "its own error", "values", "CPU s"]
    header += ["fits", "theirs off by", "their evaluations", "in batches", "their CPU s"]
    header += ["values for their error"]
    beside = dict(_by_target([row for row in fits if row["status"] == "ok"]))
    table = []
    for target, of_target in _by_target([row for row in rows if row["status"] == "ok"]):
        own = beside.get(target, [])
        for live, done in _by(_live_points, of_target):
            table.append(
                [
                    *(f"`{target}`", str(done[0]["dim"]), count(live)),
                    number(_worst(row["log_z_error"] for row in done), 3),
                    number(median(row["log_evidence_se"] for row in done), 3),
                    count(_values(done)),
                    seconds(median(row["cpu_time"] for row in done)),
                    str(len(own)),
                    number(_worst(row["log_z_error"] for row in own), 4),
                    count(median(map(_evaluations, own)) if own else None),
                    count(median(row["batched_evaluations"] for row in own) if own else None),
                    seconds(median(row["cpu_time"] for row in own) if own else None),
                    _order(_values_for(own, done)) if own else "–",
                ]
            )
    return header, table


def nested_in_words(rows: Sequence[Row], fits: Sequence[Row]) -> str:
    """On how many targets fits have no larger an error, and take how much less than its values."""
    beside = dict(_by_target([row for row in fits if row["status"] == "ok"]))
    done = [row for row in rows if row["status"] == "ok" and _live_points(row) == LIVE_POINTS]
    pairs = [(some, beside[target]) for target, some in _by_target(done) if target in beside]
    if not pairs:
        return ""
    better = dict(_by_target([row for row in rows if row["status"] == "ok"]))
    near = sum(_off(own) <= _off(some) for some, own in pairs)
    points = sum(_cost(own, _evaluations) <= _values(some) / 10 for some, own in pairs)
    batches = sum(
        _cost(own, lambda row: row["batched_evaluations"]) <= _values(some) / 10
        for some, own in pairs
    )
    equal = sum(
        _cost(own, _evaluations)
        <= min(_values_for(own, group) for _, group in _by(_live_points, better[target])) / 10
        for target, own in ((some[0]["target"], own) for some, own in pairs)
    )
    return (
        f"On {near} of {len(pairs)} targets the worst error of a fit is no larger. Counted point by"
        f" point, a fit takes a tenth of the values of nested sampling or fewer on {points} of"
        f" {len(pairs)}: it takes more, side by side. Counted in batches, it does on {batches}. At"
        f" an equal error, point by point, it does on {equal}.\n"
    )


def _evaluations(row: Row) -> int:
    """Gradients and values."""
    return int(row["gradient_evaluations"]) + _value_evaluations(row)


def _value_evaluations(row: Row) -> int:
    """Values of the wide draws, and of mixtures of Gaussians that are fitted to their own draws."""
    return int(row["search_draws"] or 0) + int(row.get("value_evaluations", 0))


def _off(rows: Sequence[Row]) -> float:
    return abs(_worst(row["log_z_error"] for row in rows) or 0.0)


def _values(rows: Sequence[Row]) -> float:
    return median(row["evaluations"] for row in rows)


def _values_for(fits: Sequence[Row], nested: Sequence[Row]) -> float:
    """What nested sampling would need for the error of the fits: error² · values is constant.

    The error of the fits is the worst that was seen, or their own standard error where that is
    larger; that of nested sampling is its own.
    """
    theirs = max(_off(fits), median(row["log_evidence_se"] for row in fits))
    if theirs == 0:
        return math.inf
    own = median(row["log_evidence_se"] for row in nested)
    return _values(nested) * (own / theirs) ** 2


def _order(values: float) -> str:
    """An extrapolation: above 100 000 its first digit, as 3e8."""
    if math.isinf(values):
        return "∞"
    return count(values) if values < 1e5 else f"{values:.0e}".replace("e+0", "e").replace("e+", "e")


def _live_points(row: Row) -> int:
    return int(row.get("live_points", LIVE_POINTS))


def _cost(rows: Sequence[Row], of: Callable[[Row], int]) -> float:
    return median(map(of, rows))


def needles() -> Table:
    """The narrow modes that no search meets, with the wide draws that are expected to meet each."""
    header = ["target", "sd", "sds from the middle", "mass", "wide draws that meet it"]
    return header, [
        [
            *(f"`{needle.target}`", f"{needle.sd:g}", f"{needle.distance:g}"),
            *(share(needle.share), f"{hits(needle):.1g}"),
        ]
        for needle in NEEDLES
    ]


def _by_target(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    return _by(lambda row: str(row["target"]), rows)


def _by(name: Callable[[Row], T], rows: Iterable[Row]) -> list[tuple[T, list[Row]]]:
    found: dict[T, list[Row]] = {}
    for row in rows:
        found.setdefault(name(row), []).append(row)
    return list(found.items())


def _counts(words: Iterable[str]) -> str:
    counts = Counter(words)
    return ", ".join(f"{n} {word}" for word, n in counts.most_common()) or "–"


def _worst(values: Iterable[float | None], *, signed: bool = False) -> float | None:
    """The largest, by its size or as it stands; NaN is worse than any."""
    known = [value for value in values if value is not None]
    if any(math.isnan(value) for value in known):
        return math.nan
    return max(known, key=None if signed else abs, default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
