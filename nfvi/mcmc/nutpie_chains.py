"""Chains by nutpie: NUTS in Rust, which asks Python for density and gradient alone."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.mcmc.chain import LEAST_DRAWS, Chain
from nfvi.mcmc.potential import Potential

__all__ = ["LEAST_WARMUP", "chains_by_nutpie", "check_nutpie"]

LEAST_WARMUP = 10
"""Fewer leave its schedule of adaptation without room, which it answers by a panic."""
NO_NUTPIE = (
    "sampler='nutpie' needs nutpie, which is not installed: pip install \"nfvi[nutpie]\", or take"
    " sampler='pyro', the default"
)
LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]


def check_nutpie(warmup: int, step_size: float | None, mass: str) -> None:
    """Check what nutpie is asked for.

    Raises:
        ImportError: it is not installed.
        ValueError: it has no such option.
    """
    if step_size is not None:
        raise ValueError(
            f"step_size={step_size!r}: nutpie always adapts its step; leave step_size= out, or take"
            " sampler='pyro'"
        )
    if mass != "diagonal":
        raise ValueError(
            f"mass={mass!r}: sampler='nutpie' takes 'diagonal'; take sampler='pyro' for others"
        )
    if warmup < LEAST_WARMUP:
        raise ValueError(
            f"warmup must be at least {LEAST_WARMUP} for sampler='nutpie', got {warmup}"
        )
    _nutpie()


def chains_by_nutpie(
    potential: Potential,
    starts: Tensor,
    seeds: list[int],
    *,
    draws: int,
    warmup: int,
    target_accept: float,
    max_tree_depth: int,
    threads: int,
) -> Iterator[Chain]:
    """The chains in their order, so many at a time, each in a thread of nutpie's own.

    Ctrl-C ends those that run; in the first chain its draws so far are given if there are four.

    Args:
        potential: of the target, with its graph if there is one.
        starts: a point for each chain (chains, d), on the CPU.
        seeds: one for each.
        draws: of each chain.
        warmup: of each chain.
        target_accept: what the step size is adapted to.
        max_tree_depth: at most 2^depth − 1 steps a draw.
        threads: how many chains run at a time.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        Exception: what the target raises.
    """
    settings = {
        "draws": draws,
        "tune": warmup,
        "target_accept": target_accept,
        "maxdepth": max_tree_depth,
    }
    waiting = [
        _Running(Potential(potential.target, potential.graph), start, seed, settings)
        for start, seed in zip(starts, seeds, strict=True)
    ]
    running: deque[_Running] = deque()
    given = 0
    try:
        while waiting or running:
            while waiting and len(running) < threads:
                running.append(waiting.pop(0))
                running[-1].begin()
            chain = running[0].finished()
            running.popleft()
            given += 1
            yield chain
    except KeyboardInterrupt:
        early = None if given or not running else running[0].so_far()
        if early is None:
            raise
        yield early
    finally:
        for one in running:
            one.cancel()


class _Running:
    """One chain, and the density that it asks for."""

    def __init__(
        self, potential: Potential, start: Tensor, seed: int, settings: dict[str, Any]
    ) -> None:
        self.potential, self.start, self.settings = potential, start, settings
        self.seed = seed
        self.error: Exception | None = None
        self._sampler: Any = None
        self._began = 0.0

    def begin(self) -> None:
        """Start it, in a thread of nutpie's."""
        from nutpie.compiled_pyfunc import from_pyfunc

        d = len(self.start)
        start = self.start.double().numpy()
        model = from_pyfunc(
            d,
            lambda: self._log_prob,
            lambda *_: lambda x: {"z": x},
            [np.dtype("float64")],
            [(d,)],
            ["z"],
            make_initial_point_fn=lambda _: start,
        )
        self._began = time.perf_counter()
        self._sampler = _nutpie().sample(
            model,
            chains=1,
            cores=1,
            seed=self.seed,
            progress_bar=False,
            blocking=False,
            **self.settings,
        )

    def finished(self) -> Chain:
        """The chain, when it has come to its end."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._sampler.wait()
        except RuntimeError as error:
            if self.error is not None:
                raise self.error from None
            raise ValueError(
                f"sampler='nutpie' cannot begin at {self.start.tolist()}: the gradient must"
                " be finite there, and 0 in no coordinate; move init= a little"
            ) from error
        if self.error is not None:
            raise self.error
        return self._chain(found)

    def so_far(self) -> Chain | None:
        """What there is of a chain that is ended early; ``None`` if that is too little."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chain = self._chain(self._sampler.abort())
        return chain if len(chain.draws) >= LEAST_DRAWS else None

    def cancel(self) -> None:
        """End it, for nothing."""
        self._sampler.cancel()

    def _log_prob(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """log p and its gradient at one point (d,)."""
        nothing = float("nan"), np.zeros_like(x)
        if self.error is not None:
            return nothing
        try:
            z = torch.tensor(x, dtype=self.start.dtype)
            value, gradient = self.potential.value_and_gradient(z)
        except LinAlgError:  # a divergence, as Pyro takes it
            return nothing
        except Exception as error:  # noqa: BLE001 (what is raised in here is a panic of Rust)
            self.error = error
            return nothing
        return -float(value), -gradient.double().numpy()

    def _chain(self, found: Any) -> Chain:
        stats, warm = found.sample_stats, found.warmup_sample_stats
        draws = torch.tensor(found.posterior["z"].values[0], dtype=self.start.dtype)
        gradients = torch.tensor(stats["n_steps"].values[0].astype(np.int64))
        before = int(warm["n_steps"].values.sum())
        # Nutpie keeps no time; every gradient takes as long as another.
        seconds = time.perf_counter() - self._began
        share = before / max(before + int(gradients.sum()), 1)
        return Chain(
            draws=draws,
            diverging=torch.tensor(stats["diverging"].values[0]),
            gradients=gradients,
            all_gradients=self.potential.gradients,
            accept=round(float(stats["mean_tree_accept"].values.mean()), 3),
            step_size=float(stats["step_size"].values[0, -1]),
            warmup_time=share * seconds,
            sampling_time=(1 - share) * seconds,
            complete=len(draws) == self.settings["draws"],
        )


def _nutpie() -> Any:
    """The library; ArviZ warns of its future where it is imported.

    Raises:
        ImportError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import nutpie
        except ImportError as error:
            raise ImportError(NO_NUTPIE) from error
    return nutpie
