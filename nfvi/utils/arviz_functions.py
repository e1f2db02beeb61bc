"""What is computed by ArviZ, from whichever of its two lines is installed.

Statistics come from ``arviz_stats``, which imports in a moment: 0.8 beside ArviZ 0.x on Python
3.11, 1.x on Python 3.12 and newer. Both are imported where they are used first, and give the same
numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

__all__ = ["ess", "from_dict", "loo_approximate", "mcse", "rhat"]


def rhat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat (k) of draws (chains, draws, k)."""
    return _of_columns("rhat", draws, method="rank")


def ess(draws: np.ndarray, method: str) -> np.ndarray:
    """Effective sample size (k) of draws (chains, draws, k).

    Args:
        draws: finite draws.
        method: "bulk", "tail" (5 and 95 %), "mean" or "sd".

    Returns:
        (k), nan where there are fewer than four draws.
    """
    prob = {"prob": (0.05, 0.95)} if method == "tail" else {}
    return _of_columns("ess", draws, method=method, **prob)


def mcse(draws: np.ndarray, method: str) -> np.ndarray:
    """Monte-Carlo standard error (k) of draws (chains, draws, k).

    Args:
        draws: finite draws.
        method: of the "mean" or the "sd".

    Returns:
        (k), nan where there are fewer than four draws.
    """
    return _of_columns("mcse", draws, method=method)


def from_dict(
    groups: Mapping[str, Mapping[str, np.ndarray]],
    attrs: Mapping[str, Any],
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
) -> Any:
    """The groups in ArviZ's schema, in the type that the functions of ``import arviz`` take.

    Args:
        groups: "posterior", and "sample_stats" if there are any: name -> array
            (chains, draws, \\*event), and so of likelihoods, predictions and the prior.
            "observed_data" and "constant_data": name -> any array.
        attrs: attributes of the root and of the posterior, of types that a netCDF file takes.
        dims: name of an array -> the names of its event dimensions.
        coords: name of a dimension -> the labels along it.

    Returns:
        ``arviz.InferenceData`` where ArviZ 0.x is installed, ``xarray.DataTree`` elsewhere.
    """
    labels: dict[str, Any] = {
        "dims": {name: list(names) for name, names in (dims or {}).items()},
        "coords": {name: np.asarray(values) for name, values in (coords or {}).items()},
    }
    if _has_arviz_0():
        stored = {"attrs": dict(attrs), "posterior_attrs": dict(attrs)}
        with warnings.catch_warnings():
            # Fewer draws than chains, and a site of any name, are legitimate here.
            warnings.simplefilter("ignore", UserWarning)
            return _arviz_0().from_dict(**groups, **labels, **stored, index_origin=0)
    from arviz_base import from_dict

    stored = {"/": dict(attrs), "posterior": dict(attrs)}
    # Unchecked conventions: fewer draws than chains are legitimate here.
    return from_dict(groups, **labels, attrs=stored, check_conventions=False)


def loo_approximate(
    log_likelihood: np.ndarray,
    log_p: np.ndarray,
    log_q: np.ndarray,
    *,
    name: str,
    dims: Sequence[str] = (),
) -> Any:
    """PSIS-LOO of draws from an approximation q of a posterior p: ``arviz_stats.ELPDData``.

    Args:
        log_likelihood: by observation (n, \\*shape).
        log_p: unnormalised (n).
        log_q: (n).
        name: of the observed site.
        dims: the names of its dimensions.
    """
    import arviz_stats
    from arviz_base import from_dict

    groups = {"log_likelihood": {name: log_likelihood[None]}}
    tree = from_dict(groups, dims={name: list(dims)}, check_conventions=False)
    loo: Any = arviz_stats.loo_approximate_posterior
    return loo(tree, log_p.astype(float), log_q.astype(float), pointwise=True)


def _of_columns(statistic: str, draws: np.ndarray, **options: object) -> np.ndarray:
    """A statistic of each column of draws (chains, draws, k), by its name in both lines."""
    array_stats = _array_stats()
    if array_stats is not None:
        function = getattr(array_stats, statistic)
        return np.asarray(function(draws, chain_axis=0, draw_axis=1, **options))
    function = getattr(_arviz_0(), statistic)
    return np.array([function(column, **options) for column in np.moveaxis(draws, 2, 0)])


def _array_stats() -> Any:
    """The array functions of ``arviz_stats``; None where they are missing or older than its PSIS.

    Those give another ESS of an sd.
    """
    try:
        from arviz_stats.base import array_stats
    except ImportError:
        return None
    return array_stats if hasattr(array_stats, "psislw") else None


def _has_arviz_0() -> bool:
    """Whether ``import arviz`` gives a 0.x; told from its metadata, as importing takes seconds."""
    try:
        return int(metadata.version("arviz").partition(".")[0]) == 0
    except metadata.PackageNotFoundError:
        return False


def _arviz_0() -> Any:
    """The package ``arviz``, without its notice to whoever imports it: here us, not the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz
