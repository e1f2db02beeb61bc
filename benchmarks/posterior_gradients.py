"""A row of benchmarks/posteriors.py about the path gradient beside the total one."""

from __future__ import annotations

import torch
from posterior_cases import Case
from posterior_rows import DRAWS, check_complete
from posterior_store import Row

from nfvi import NFVI
from nfvi.diagnostics import KHAT_LIMIT, diagnose, draw_weighted

__all__ = ["GAIN", "NEAR", "gradients_row", "path_holds"]

GAIN, NEAR = 0.1, 0.02


def gradients_row(case: Case, formula: str, seed: int, steps: int) -> Row:
    """The same fit by either gradient: one restart, the same seed, start, draws and steps.

    Start and draws are as for ``"auto"``, without tempering, which would leave the start again.

    log Z is the known one, else the evidence by importance sampling from the better of the two
    where its k-hat allows that.

    Raises:
        KeyboardInterrupt: a fit was interrupted.
    """
    found = {}
    for gradient in ("path", "total"):
        fit = NFVI(formula, seed=seed).fit(
            case.target,
            init="auto",
            steps=steps,
            restarts=1,
            anneal=False,
            draws="qmc",
            gradient=gradient,
            progress=False,
        )
        check_complete(fit)
        generator = torch.Generator(fit.guide.device).manual_seed(seed + 1)
        found[gradient] = diagnose(draw_weighted(fit.guide, case.target, DRAWS, generator))
    better = min(found.values(), key=lambda d: d.khat)
    estimate = better.log_evidence if better.khat < KHAT_LIMIT else None
    return {
        "formula": formula,
        "steps": steps,
        "log_z": estimate if case.log_z is None else case.log_z,
        "log_z_known": case.log_z is not None,
        **{f"elbo_{name}": d.elbo for name, d in found.items()},
        **{f"elbo_se_{name}": d.elbo_se for name, d in found.items()},
        **{f"khat_{name}": d.khat for name, d in found.items()},
    }


def path_holds(row: Row) -> bool:
    """Whether the path gradient's ELBO is better by 0.1 nats, or both are within 0.02 of log Z."""
    if row["elbo_path"] - row["elbo_total"] >= GAIN:
        return True
    log_z = row["log_z"]
    elbos = row["elbo_path"], row["elbo_total"]
    return log_z is not None and all(abs(log_z - elbo) <= NEAR for elbo in elbos)
