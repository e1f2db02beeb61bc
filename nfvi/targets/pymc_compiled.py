"""What a PyMC model says, as functions of torch's points: which graph, and by which library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS
from nfvi.targets.pymc_functions import OnPoints, by_jax, by_pytensor, has_jax
from nfvi.targets.pymc_graphs import Graphs

__all__ = ["Compiled", "compiled"]


@dataclass(frozen=True)
class Compiled:
    """A function of points.

    Attributes:
        run: the function.
        work: numbers that its operations write for a point, as JAX counts them; 0 without JAX.
        loop: the operation for which PyTensor takes points one by one, "" where it need not;
            ``None`` by JAX.
    """

    run: OnPoints
    work: float = 0.0
    loop: str | None = None


def compiled(graphs: Graphs, kind: str, mode: Any, name: str) -> Compiled:
    """``"value"``, ``"gradient"``, ``"sites"`` or ``"likelihood"`` of a model, compiled.

    Args:
        graphs: of the model.
        kind: what; the first two with ``"_of_rows"`` behind them take numbers of rows as well.
        mode: ``"JAX"``, one of PyTensor's, or ``None`` for JAX where it is installed and runs it.
        name: of the model.

    Raises:
        TargetError: JAX, which was asked for, cannot run it.
    """
    what = kind.removesuffix("_of_rows")
    of_rows = graphs.of_rows if what != kind else None
    more = {"sites": graphs.shown, "likelihood": graphs.likelihood}
    one = graphs if of_rows is None else of_rows
    outputs = [*more[kind].values()] if kind in more else [one.log_p]
    given: dict[str, Any] = {
        "gradient": what == "gradient",
        "rows": None if of_rows is None else of_rows.index,
        "many": graphs.of_rows is not None,
    }
    if mode == "JAX" or (mode is None and has_jax()):
        try:
            return Compiled(*by_jax(graphs.z, outputs, **given))
        except (*USER_ERRORS, ImportError) as error:
            if mode == "JAX":
                raise TargetError(
                    f"{name!r} cannot be run by JAX: {type(error).__name__}: {error}."
                    " Leave out mode=, or choose one of PyTensor's, as mode='NUMBA'"
                ) from error
    run, loop = by_pytensor(graphs.z, outputs, mode, one.work, **given)
    return Compiled(run, loop=loop)
