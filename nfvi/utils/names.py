"""What the scalars of a site are called."""

from __future__ import annotations

from itertools import product

__all__ = ["scalar_names"]


def scalar_names(site: str, event: tuple[int, ...]) -> list[str]:
    """The names of the scalars of a site, the last index running fastest.

    >>> scalar_names("theta", (2,)), scalar_names("mu", ())
    (['theta[0]', 'theta[1]'], ['mu'])
    """
    indices = product(*map(range, event))
    return [f"{site}[{', '.join(map(str, index))}]" if index else site for index in indices]
