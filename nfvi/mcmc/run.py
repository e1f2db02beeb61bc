"""What HMC and NUTS return: draws, diagnostics in words, the way to ArviZ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.mcmc.arviz import export_run
from nfvi.mcmc.chain_stats import ess, mcse, rhat
from nfvi.mcmc.summary import (
    RunReport,
    ScalarSummary,
    run_html,
    scalar_table,
    summary_frame,
    summary_text,
)
from nfvi.targets import Target
from nfvi.utils import check_flag, check_whole, scalar_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MCMCRun"]


@dataclass(frozen=True, eq=False, repr=False)
class MCMCRun:
    """The draws of some chains and how the sampling went.

    Attributes:
        target: what was sampled.
        kernel: ``"NUTS"`` or ``"HMC"``.
        draws: (chains, draws, d), on unconstrained space; warm-up is not among them.
        starts: (chains, d), where the chains began.
        diverging: (chains, draws) bool, the draws whose trajectory diverged.
        draw_gradients: (chains, draws) int, gradient evaluations (leapfrog steps) behind each draw.
        accept: (chains,) mean acceptance probability, to three decimals.
        step_size: (chains,) leapfrog step after warm-up, on the scale of the adapted mass.
        warmup: draws of warm-up in each chain.
        seed: repeats the run bit for bit on one machine.
        gradient_evaluations: in all chains, warm-up included.
        wall_time: seconds, warm-up included.
        warmup_time: seconds of warm-up, summed over the chains.
        sampling_time: seconds after it, summed over the chains.
        max_gradients: most gradient evaluations that a draw may take; draws that reach it were cut.
        interrupted: whether Ctrl-C left fewer chains or draws than were asked for.
    """

    target: Target
    kernel: str
    draws: Tensor
    starts: Tensor
    diverging: Tensor
    draw_gradients: Tensor
    accept: Tensor
    step_size: Tensor
    warmup: int
    seed: int
    gradient_evaluations: int
    wall_time: float
    warmup_time: float
    sampling_time: float
    max_gradients: int
    interrupted: bool = False

    def sites(self) -> dict[str, Tensor]:
        """The draws on the constrained scale: site -> (chains, draws, \\*event)."""
        return dict(self._sites)

    def sample(
        self, n: int | None = None, *, seed: int | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Draws of all chains together, as ``Fit.sample`` returns them.

        Args:
            n: how many, chosen at random without replacement; default all, chain after chain.
            seed: of that choice; default a fresh one.

        Returns:
            A tensor (n, d) for a log-density; for a model a dict of constrained sites, each
            (n, \\*event).

        Raises:
            ValueError: n is not between 1 and the number of draws there are.
        """
        total = self.draws.shape[0] * self.draws.shape[1]
        chosen: Tensor | slice = slice(None)
        if n is not None:
            check_whole("n", n, 1, total)
            generator = torch.Generator(device="cpu")
            generator.seed() if seed is None else generator.manual_seed(seed)
            chosen = torch.randperm(total, generator=generator, device="cpu")[:n]
            chosen = chosen.to(self.draws.device)
        if not self.target.named:
            return self.draws.flatten(0, 1)[chosen]
        return {name: x.flatten(0, 1)[chosen] for name, x in self._sites.items()}

    @property
    def divergences(self) -> Tensor:
        """(chains,) int, how many draws of each chain diverged."""
        return self.diverging.sum(1)

    @cached_property
    def log_prob(self) -> Tensor:
        """(chains, draws), the log-density of every draw on unconstrained space."""
        with torch.no_grad():
            return self.target.log_prob(self.draws.flatten(0, 1)).reshape(self.draws.shape[:2])

    @cached_property
    def rhat(self) -> dict[str, Tensor]:
        """Rank-normalised split R-hat: site -> (\\*event); nan where undefined (one chain)."""
        return {name: rhat(x) for name, x in self._sites.items()}

    @cached_property
    def ess_bulk(self) -> dict[str, Tensor]:
        """Effective draws for the bulk, of all chains together: site -> (\\*event)."""
        return {name: ess(x, "bulk") for name, x in self._sites.items()}

    @cached_property
    def ess_tail(self) -> dict[str, Tensor]:
        """Effective draws for the 5 and 95 % quantiles, the lesser: site -> (\\*event)."""
        return {name: ess(x, "tail") for name, x in self._sites.items()}

    @cached_property
    def table(self) -> tuple[ScalarSummary, ...]:
        """One row for every scalar of every site that is not constant."""
        return scalar_table(self._sites, self.rhat, self.ess_bulk, self.ess_tail)

    def summary(self) -> pd.DataFrame:
        """A row for every scalar that varies, with the columns of ArviZ's summary.

        They are ``mean``, ``sd``, the ends ``hdi_3%`` and ``hdi_97%`` of the narrowest interval
        with 94 % of the draws, the Monte-Carlo standard errors ``mcse_mean`` and ``mcse_sd``,
        ``ess_bulk``, ``ess_tail`` and ``r_hat``: with any ArviZ the names that its line 0.x has.
        """
        errors = {
            name: pair
            for site, x in self._sites.items()
            for name, *pair in zip(
                scalar_names(site, tuple(x.shape[2:])),
                *(mcse(x, kind).flatten().tolist() for kind in ("mean", "sd")),
                strict=True,
            )
        }
        rows = {
            r.name: (
                *(r.mean, r.sd, r.hdi_low, r.hdi_high, *errors[r.name]),
                *(r.ess_bulk, r.ess_tail, r.rhat),
            )
            for r in self.table
        }
        return summary_frame(rows, ("mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"))

    def describe(self, *, shell: bool = False) -> str:
        """What ``print(run)`` shows: how the run went, a table per scalar, and advice.

        Args:
            shell: whether advice names options of the command line in place of arguments.
        """
        return summary_text(self._report(shell))

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return run_html(self._report())

    def __repr__(self) -> str:
        chains, draws, dim = self.draws.shape
        return f"MCMCRun({self.kernel}, {self.target.name!r}, {chains=}, {draws=}, {dim=})"

    def to_arviz(self, *, log_likelihood: bool = True, predictions: bool = False) -> Any:
        """The run for the installed ArviZ; see :func:`nfvi.utils.arviz_export.to_inference_data`.

        ``posterior`` holds the constrained sites, ``sample_stats`` ``lp`` (the log-density on
        unconstrained space), ``diverging``, ``n_steps`` and ``step_size``. Names of dimensions and
        data are those that the target knows.

        Args:
            log_likelihood: whether to add the group of that name, one number for each draw and
                observation, where the target tells its observations apart.
            predictions: whether to add ``posterior_predictive``, a data set for each draw.

        Raises:
            TargetError: with ``predictions=True``, no data can be drawn from the target.
        """
        check_flag("log_likelihood", log_likelihood)
        check_flag("predictions", predictions)
        stats = {
            "lp": self.log_prob,
            "diverging": self.diverging,
            "n_steps": self.draw_gradients,
            "step_size": self.step_size[:, None].expand(self.diverging.shape),
        }
        attrs = {
            "inference_library": "nfvi",
            "method": self.kernel,
            "target": self.target.name,
            "tuning_steps": self.warmup,
            "sampling_time": self.wall_time,
            "gradient_evaluations": self.gradient_evaluations,
            "acceptance": self.accept,
            "seed": self.seed,
            "interrupted": self.interrupted,
        }
        seed = self.seed if predictions else None
        return export_run(self.target, self.draws, self._sites, stats, attrs, log_likelihood, seed)

    def _report(self, shell: bool = False) -> RunReport:
        chains, draws, _ = self.draws.shape
        return RunReport(
            kernel=self.kernel,
            target=self.target.name,
            chains=chains,
            draws=draws,
            warmup=self.warmup,
            seed=self.seed,
            wall_time=self.wall_time,
            warmup_time=self.warmup_time,
            sampling_time=self.sampling_time,
            gradient_evaluations=self.gradient_evaluations,
            accept=self.accept.tolist(),
            step_size=self.step_size.tolist(),
            diverged=int(self.diverging.sum()),
            cut=int((self.draw_gradients >= self.max_gradients).sum()),
            max_gradients=self.max_gradients,
            interrupted=self.interrupted,
            table=self.table,
            shell=shell,
        )

    @cached_property
    def _sites(self) -> dict[str, Tensor]:
        with torch.no_grad():
            flat = self.target.constrain(self.draws.flatten(0, 1))
        return {k: x.reshape(*self.draws.shape[:2], *x.shape[1:]) for k, x in flat.items()}
