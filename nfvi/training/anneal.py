"""What the argument ``anneal`` of a fit means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import TypeAlias

__all__ = ["ANNEAL", "Anneal", "is_adaptive", "tempering_lengths"]

# Without networks in the formula, and with them. A long rise keeps the shares of the modes right
# (docs/training.md), and leaves fewer steps at β = 1; on pot4 or a funnel any costs accuracy. With
# 0.4 of 5 000 steps `nsf*2` on the banana ended at 0.15 and 0.22 nats, with 0.6 at 0.01 and 0.02.
ANNEAL = (0.4, 0.6)
# Of the steps at most that adaptive tempering takes.
MOST = 0.6
ADAPTIVE = "adaptive"

Anneal: TypeAlias = bool | float | str | Sequence[bool | float | str] | None


def tempering_lengths(
    anneal: Anneal, restarts: int, steps: int, usual: float = ANNEAL[0]
) -> tuple[int, ...]:
    """Steps for which each restart is tempered, from the ``anneal`` argument.

    Args:
        anneal: the argument.
        restarts: how many.
        steps: of the fit.
        usual: the fraction that ``None`` and ``True`` stand for.

    Raises:
        ValueError: a fraction outside [0, 1], or not one for each restart.
    """
    if anneal is None:
        fractions: list[float] = [0.0 if i % 4 == 1 else usual for i in range(restarts)]
    elif isinstance(anneal, Iterable) and not isinstance(anneal, str):
        fractions = [_fraction(a, usual) for a in anneal]
        if len(fractions) != restarts:
            raise ValueError(
                f"anneal has {len(fractions)} fractions for restarts={restarts}; give one number,"
                " or one for each restart"
            )
    else:
        fractions = [_fraction(anneal, usual)] * restarts
    return tuple(round(fraction * steps) for fraction in fractions)


def is_adaptive(anneal: Anneal) -> bool:
    """Whether ``anneal`` is ``"adaptive"``, or such for each restart that is tempered.

    Raises:
        ValueError: some restarts are to be tempered adaptively and others by a fraction.
    """
    if isinstance(anneal, str) or not isinstance(anneal, Iterable):
        return anneal == ADAPTIVE
    words = [a for a in anneal if a == ADAPTIVE]
    if words and any(a != ADAPTIVE and a for a in anneal):
        raise ValueError(f'beside "{ADAPTIVE}", anneal takes False for a restart; got {anneal!r}')
    return bool(words)


def _fraction(value: object, usual: float) -> float:
    if value == ADAPTIVE:
        return MOST
    if isinstance(value, bool):
        return usual if value else 0.0
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(
            f'anneal must be fractions of the steps from 0 to 1, or "adaptive", got {value!r}'
        )
    return float(value)
