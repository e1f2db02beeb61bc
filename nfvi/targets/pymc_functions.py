"""Graphs of PyTensor as functions of torch's points: by JAX where it can, or by PyTensor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS
from nfvi.targets.jax_batches import OnBatches, jax_package, points_at_once, precision, work_of
from nfvi.utils import process_wide, sizes

__all__ = ["OnPoints", "by_jax", "by_pytensor", "check_mode", "has_jax"]

OnPoints: TypeAlias = Callable[..., list[Tensor]]
"""From points z (n, d), and where the graphs take rows from their numbers (B,)."""
LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]


def has_jax() -> bool:
    """Whether JAX can be imported."""
    try:
        jax_package("PyMC by JAX")
    except ImportError:
        return False
    return True


def by_jax(
    z: Any,
    outputs: Sequence[Any],
    *,
    gradient: bool = False,
    rows: Any = None,
    many: bool = False,
) -> tuple[OnPoints, float]:
    """The outputs as functions of points (n, d), by JAX, and the numbers written for one point.

    Args:
        z: the vector (d,) that they depend on.
        outputs: graphs; with ``gradient`` one, a scalar, whose gradient is returned with it.
        gradient: whether to return it.
        rows: the vector of numbers of rows that they depend on, too; ``None`` without any.
        many: whether they are of many rows of data.

    Raises:
        NotImplementedError, TypeError and others: JAX cannot do an operation of the graphs.
    """
    import jax

    shared = [] if rows is None else [rows]
    fn = _jaxified([z, *shared], outputs)
    transform: Callable[[Any], Any] = jax.value_and_grad if gradient else lambda f: f
    dtype = getattr(torch, z.dtype)

    def one(*point: Any) -> Any:
        values = fn(*point)
        return values[0] if gradient else list(values)

    some = [np.zeros(row.type.shape, row.type.dtype) for row in shared]
    work = work_of(lambda point: transform(one)(point, *some), z.type.shape[0], dtype)
    most = points_at_once(work, of_rows=many)
    batches = OnBatches(one, most, transform, len(shared))

    def run(points: Tensor, *rows: np.ndarray) -> list[Tensor]:
        return list(batches(points.detach().to(dtype), *rows))

    return run, work


def by_pytensor(
    z: Any,
    outputs: Sequence[Any],
    mode: Any,
    work: float,
    *,
    gradient: bool = False,
    rows: Any = None,
    many: bool = False,
) -> tuple[OnPoints, str]:
    """The same by a function that PyTensor compiles, over a batch of points or over one.

    Args:
        z: the vector (d,) that they depend on.
        outputs: graphs; as in :func:`by_jax`.
        mode: of PyTensor; ``None`` for its default, or Numba where that would be Python for want of
            a C compiler.
        work: numbers that are written for one point.
        gradient: whether to return that of the one output with it.
        rows: as in :func:`by_jax`, as is ``many``.

    Returns:
        The function, and why it is a loop over the points; empty where it is none.
    """
    import pytensor
    import pytensor.tensor as pt
    from pytensor.graph.replace import vectorize_graph

    if mode is None and not pytensor.config.cxx:
        mode = "NUMBA"
    shared = [] if rows is None else [rows]
    with process_wide(), _quiet():
        if gradient:
            outputs = [outputs[0], pytensor.grad(outputs[0], z)]
        points = pt.matrix("z", shape=(None, z.type.shape[0]), dtype=z.dtype)
        try:
            batched = vectorize_graph(list(outputs), {z: points})
        except USER_ERRORS as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            return _looped(_compiled([z, *shared], outputs, mode), z.dtype), reason
        fn = _compiled([points, *shared], batched, mode)
    same = [out.ndim == own.ndim for out, own in zip(batched, outputs, strict=True)]
    most = points_at_once(work, of_rows=many)

    def run(points: Tensor, *rows: np.ndarray) -> list[Tensor]:
        z_rows = points.detach().cpu().numpy().astype(z.dtype)
        ends = np.cumsum([*sizes(len(z_rows), most)])[:-1]
        pieces = [_call(fn, part, *rows) for part in np.split(z_rows, ends)]
        found = [
            _repeated(parts[0], len(z_rows)) if fixed else np.concatenate(parts)
            for fixed, *parts in zip(same, *pieces, strict=True)
        ]
        return [torch.from_numpy(x).to(points.device) for x in found]

    return run, ""


def _repeated(x: np.ndarray, n: int) -> np.ndarray:
    """What does not depend on the point, for each of n points."""
    return np.array(np.broadcast_to(x, (n, *np.shape(x))))


def _looped(fn: Any, dtype: str) -> OnPoints:
    def run(points: Tensor, *rows: np.ndarray) -> list[Tensor]:
        each = points.detach().cpu().numpy().astype(dtype)
        found = zip(*(_call(fn, point, *rows) for point in each), strict=True)
        return [torch.from_numpy(np.stack(x)).to(points.device) for x in found]

    return run


def check_mode(mode: Any) -> None:
    """Check the argument ``mode`` of a :class:`PyMCTarget`.

    Raises:
        TargetError: PyTensor knows no such mode.
    """
    from pytensor.compile.mode import get_mode, predefined_modes

    try:
        get_mode(mode)
    except (ValueError, TypeError) as error:
        known = ", ".join(repr(name) for name in sorted(predefined_modes))
        raise TargetError(f"mode= must be one of {known}; got {mode!r}") from error


def _compiled(inputs: Sequence[Any], outputs: Sequence[Any], mode: Any) -> Any:
    from pymc.pytensorf import compile

    fn = compile(list(inputs), list(outputs), mode=mode, on_unused_input="ignore")
    fn.trust_input = True
    return fn


def _call(fn: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    # Its storage is shared by all calls.
    with process_wide(), np.errstate(all="ignore"), _quiet():
        try:
            return [np.array(x) for x in fn(*inputs)]
        except np.linalg.LinAlgError as error:
            raise LinAlgError(str(error)) from error


def _jaxified(inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """A function of JAX, of one point and of rows, from graphs."""
    from pytensor.compile.mode import JAX
    from pytensor.graph.fg import FunctionGraph

    with process_wide(), _quiet(), precision(getattr(torch, inputs[0].dtype)):
        # PyTensor sets JAX's switch for float64 to its own floatX as this is imported.
        from pytensor.link.jax.dispatch import jax_funcify

        graph = FunctionGraph(list(inputs), list(outputs), clone=True)
        JAX.optimizer.rewrite(graph)
        return jax_funcify(graph)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTensor warns of a missing C compiler, checks that JAX skips, and division by 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
