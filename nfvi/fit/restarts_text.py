"""What ``print(fit)`` says of the restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nfvi.fit.restarts import Restart

__all__ = ["restart_lines", "spread"]

# A mode that holds a quarter of the mass costs 0.3 nats when it is lost.
SPREAD = 0.3
MOST_LISTED = 10
"""Components of a mixture; more are Gaussians that follow one shape, or modes in a row."""


def restart_lines(restarts: Sequence[Restart]) -> list[str]:
    """The ELBO of each restart, and what became of it; the weights of a mixture."""
    if len(restarts) == 1 and not restarts[0].skipped:
        return []
    weights = [r.weight for r in restarts if r.weight is not None]
    if len(weights) > MOST_LISTED:
        shares = f"weights from {min(weights):.2g} to {max(weights):.2g}"
        return [f"mixture of {len(weights)} components with {shares}"]
    mixed = [f"{weight:.3f}" for weight in weights]
    mixture = f"mixture of {len(mixed)} restarts with weights {', '.join(mixed)}"
    words = "; ".join(_words(restart, bool(mixed)) for restart in restarts)
    return [f"ELBO of each restart: {words}", *([mixture] if mixed else [])]


def _words(restart: Restart, mixed: bool) -> str:
    notes = ["tempered"] if restart.tempered else []
    notes += [f"{restart.skipped} steps skipped"] if restart.skipped else []
    notes += ["dropped"] if restart.dropped else []
    notes += [f"pruned at step {restart.pruned:,}"] if restart.pruned is not None else []
    notes += ["kept"] if restart.weight is not None or (restart.best and not mixed) else []
    elbo = "-" if math.isnan(restart.elbo) else f"{restart.elbo:.3f}"
    return elbo + (f" ({', '.join(notes)})" if notes else "")


def spread(restarts: Sequence[Restart], *, shell: bool = False) -> list[str]:
    """Whether the restarts agree on the ELBO; those of a mixture need not.

    Args:
        restarts: all of them.
        shell: whether to name options of the command line in place of arguments.
    """
    alive = [r for r in restarts if _ended(r)]
    if len(alive) < 2 or any(r.weight is not None for r in alive):
        return []
    best = max(alive, key=lambda r: r.elbo)
    limit = max(SPREAD, 5 * best.elbo_se)
    reached = sum(r.elbo > best.elbo - limit for r in alive)
    if reached == len(alive):
        return []
    if reached == 1:
        longer, more = ("--anneal 0.8", "--restarts") if shell else ("anneal=0.8", "restarts")
        return [
            f"Only the kept one of {len(alive)} restarts came so far, the next ended"
            f" {best.elbo - sorted(r.elbo for r in alive)[-2]:.2f} nats lower, as when a mode is"
            f" lost: temper for longer ({longer}) or use more {more}."
        ]
    return [
        f"{reached} of {len(alive)} restarts agree to {limit:.1f} nats; the others ended lower, as"
        " when a mode is lost, and were not kept."
    ]


def _ended(restart: Restart) -> bool:
    return not restart.dropped and restart.pruned is None and math.isfinite(restart.elbo)
