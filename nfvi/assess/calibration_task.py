"""One simulation of a calibration: draw from the model, fit, rank the truth among the draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyro
from torch import Tensor

from nfvi.errors import FitError, TargetError
from nfvi.fit import VerdictWord, judge
from nfvi.inference import NFVI
from nfvi.targets import PyroTarget, given_data, simulate

__all__ = ["Outcome", "Task"]

Ranks = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]


@dataclass(frozen=True)
class Outcome:
    """One simulation.

    Attributes:
        index: its number.
        ranks: site -> (\\*event), how many draws are below the true value.
        constant: site -> (\\*event), whether all draws are equal to it.
        failure: why there are none.
        verdict: the word for the fit, without a search for missed mass.
    """

    index: int
    ranks: Ranks
    constant: Ranks
    failure: str = ""
    verdict: VerdictWord | None = None


@dataclass(frozen=True)
class Task:
    """All that a simulation depends on, beside its number.

    Attributes:
        model: the Pyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        params: the values of its ``pyro.param`` statements.
        name: what messages call it.
        nfvi: arguments of :class:`nfvi.NFVI`, the seed left out.
        options: arguments of its ``fit``.
        draws: L.
        weighted: whether they are importance-resampled.
        seed: of the whole calibration.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    params: Mapping[str, Tensor]
    name: str
    nfvi: dict[str, Any]
    options: dict[str, Any]
    draws: int
    weighted: bool
    seed: int

    @classmethod
    def of(
        cls,
        target: PyroTarget,
        nfvi: dict[str, Any],
        options: dict[str, Any],
        draws: int,
        weighted: bool,
        seed: int,
    ) -> Task:
        """The task of a target's model."""
        program = target.program
        return cls(
            program.model,
            program.args,
            program.kwargs,
            program.params,
            target.name,
            nfvi,
            options,
            draws,
            weighted,
            seed,
        )

    @cached_property
    def target(self) -> PyroTarget:
        """The model with the user's own data."""
        store = pyro.get_param_store()
        with warnings.catch_warnings(), store.scope():
            warnings.simplefilter("ignore")
            for name, value in self.params.items():
                store[name] = value
            return PyroTarget(self.model, *self.args, name=self.name, **self.kwargs)

    def run(self, target: PyroTarget, index: int) -> Outcome | None:
        """Draw latent sites and data, fit, and rank; ``None`` if it was interrupted.

        The same whatever else is run, in this process or another.
        """
        numbers = np.random.SeedSequence(self.seed, spawn_key=(index,)).generate_state(4, np.uint64)
        seeds = [int(number) >> 1 for number in numbers]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                drawn = simulate(target, seeds[0])
                found = NFVI(**self.nfvi, seed=seeds[1]).fit(
                    given_data(target, drawn.data),
                    **self.options,
                    distribute=False,
                    progress=False,
                )
                if found.stopped == "interrupted":
                    return None
                sample = found.importance_resample if self.weighted else found.sample
                draws = sample(self.draws, seed=seeds[2])
        except (FitError, TargetError) as error:
            return Outcome(index, {}, {}, failure=str(error))
        if not all(bool(draws[site].isfinite().all()) for site in target.sites):
            return Outcome(index, {}, {}, failure="draws of the fit were not finite")
        ranked = {site: _ranks(drawn.latents[site], draws[site], seeds[3]) for site in target.sites}
        ranks, constant = ({site: pair[k] for site, pair in ranked.items()} for k in (0, 1))
        word = judge(found.findings(search=False)).word
        return Outcome(index, ranks, constant, verdict=word)


def _ranks(truth: Tensor, draws: Tensor, seed: int) -> tuple[Any, Any]:
    """How many draws (L, \\*event) are below the true value (\\*event), ties decided by chance."""
    value, others = truth.double().cpu().numpy(), draws.double().cpu().numpy()
    ties = np.random.default_rng(seed).integers(0, (others == value).sum(0), endpoint=True)
    near = np.abs(others - value).max(0) <= 1e-6 * np.maximum(1, np.abs(value))
    return np.asarray((others < value).sum(0) + ties), np.asarray(near)
