"""The posterior predictive check of ``fit.report(path)``: data beside what the model predicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.utils import Section, picture, scrolled, short, words

__all__ = ["predictive_check"]

DATA_SETS = 400
FEWEST = 20
TRIAL = 4
SECONDS = 30.0
"""A report waits no longer for predictions; a model in a Python loop takes about 1 ms each."""
NUMBERS = 20_000_000
STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "sd": np.std,
    "least": np.min,
    "largest": np.max,
}
HEADER = ["", "data", "5 % predicted", "50 %", "95 %", "predicted above the data"]

Predict = Callable[[int], Mapping[str, Tensor]]


def predictive_check(observed: Mapping[str, Any], predict: Predict) -> Section | None:
    """A picture and a table; ``None`` for a target that has no data of its own.

    Args:
        observed: site -> data.
        predict: so many data sets, by site.
    """
    if not observed:
        return None
    return Section("Posterior predictive check", tuple(_parts(observed, predict)))


def _parts(observed: Mapping[str, Any], predict: Predict) -> Iterator[str]:
    from nfvi import plots

    try:
        count = _affordable(observed, predict)
        if count < FEWEST:
            yield words(
                f"Left out, as {FEWEST} predicted data sets would take more than {SECONDS:.0f}"
                " seconds or too much memory: plots.predictive draws them."
            )
            return
        predicted = predict(count)
    except TargetError as error:
        yield words(f"No predictions: {error}.")
        return
    alt = "data beside predicted data"
    yield picture(lambda: plots.predictive(observed, predicted), alt)
    yield scrolled(HEADER, [row for name in observed for row in _rows(name, observed, predicted)])
    yield words(
        "A share near 0 or 1 in the last column says that the model does not make data like these."
    )


def _affordable(observed: Mapping[str, Any], predict: Predict) -> int:
    """How many data sets fit into the time and the memory."""
    size = max(sum(int(np.prod(np.shape(data))) for data in observed.values()), 1)
    predict(1)  # the first call may prepare
    started = time.perf_counter()
    predict(TRIAL)
    each = (time.perf_counter() - started) / TRIAL
    return int(min(DATA_SETS, NUMBERS // size, SECONDS / max(each, 1e-9)))


def _rows(
    name: str, observed: Mapping[str, Any], predicted: Mapping[str, Tensor]
) -> Iterator[list[str]]:
    """A row for each statistic of a site."""
    if name not in predicted:
        return
    data = np.asarray(observed[name], np.float64).ravel()
    there = np.isfinite(data)
    draws = predicted[name].detach().cpu().double().flatten(1).numpy()
    if draws.shape[1:] != data.shape or not there.any():
        return
    for word, statistic in STATISTICS.items():
        if there.sum() == 1 and word != "mean":
            continue
        seen, made = statistic(data[there]), statistic(draws[:, there], axis=1)
        above = float((made > seen).mean() + 0.5 * (made == seen).mean())
        numbers = (seen, *np.nanquantile(made, [0.05, 0.5, 0.95]))
        yield [f"{word} of {name}", *(short(float(x)) for x in numbers), f"{above:.2f}"]
