"""A function of tensors traced into a graph, and held against the function itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from nfvi.tracing.passes import clean, failures_as_outputs
from nfvi.tracing.record import NoGraphError, Recording, recorded
from nfvi.tracing.runners import Run, inductor, runners

__all__ = [
    "TraceError",
    "Traced",
    "compiled",
    "compiled_in_place",
    "equal",
    "same",
    "traced",
]

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]
Inputs: TypeAlias = Sequence[Tensor]
Function: TypeAlias = Callable[..., tuple[Tensor, ...]]


class TraceError(RuntimeError):
    """A function cannot be replaced by a graph; the message says why."""


class Traced:
    """A graph in place of a function, for inputs of one shape.

    It must be called with tensors of the shapes, dtypes and device that it was traced with.

    Args:
        run: the graph.
        module: what it was made from.
        checks: how many of its outputs tell whether a factorisation failed.

    Attributes:
        agrees: whether what it gave is what the function itself gave: ``agrees(values, others)``.
    """

    def __init__(
        self,
        run: Run,
        module: Recording,
        checks: int,
        agrees: Callable[[Inputs, Inputs], bool] | None = None,
    ) -> None:
        self._run, self._opaque, self._checks = run, module.opaque, checks
        self.agrees = same if agrees is None else agrees

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The values of the function, without a graph for autograd.

        Raises:
            LinAlgError: a factorisation failed; the function itself may know what to do then.
            RuntimeError: something that it calls raised an error, likewise.
        """
        try:
            values = tuple(self._run(*inputs))
        except Exception as error:
            for raised in filter(None, (one.raised() for one in self._opaque)):
                if not isinstance(raised, Exception):
                    raise raised from None  # Ctrl-C
                raise RuntimeError(_first_line(raised)) from error
            raise
        if not self._checks:
            return values
        if any(bool(info.any()) for info in values[-self._checks :]):
            raise LinAlgError("a factorisation of a traced function failed")
        return values[: -self._checks]


def traced(function: Function, points: Sequence[Inputs]) -> Traced:
    """A graph that gives the values of a function at some points to the last bit.

    What the function does in Python is done once, and stays as it is then: a branch, or a number
    that it reads from elsewhere.

    Args:
        function: of tensors, to a tuple of tensors; it draws no random numbers, and its course
            does not depend on values.
        points: at least one; all of the same shapes. The graph is verified at each.

    Raises:
        TraceError: the function does not allow it, or the graph gives other numbers.
    """
    expected = _values(function, points)
    module, checks = _graph(function, points[0])
    for run in runners(module, points[0]):
        found = Traced(run, module, checks)
        if _agrees(found, points, expected):
            return found
    raise TraceError("the traced graph gives other numbers")


def compiled(function: Function, points: Sequence[Inputs]) -> Traced:
    """The same, compiled by PyTorch's inductor: equal to rounding, not to the last bit.

    It takes some ten seconds, or minutes where nothing like it was compiled before.

    Args:
        function: as for :func:`traced`.
        points: likewise.

    Raises:
        TraceError: as for :func:`traced`; or it cannot be compiled here.
    """
    expected = _values(function, points)
    module, checks = _graph(function, points[0])
    try:
        found = Traced(inductor(module, points[0]), module, checks, _near)
    except Exception as error:
        raise TraceError(_first_line(error)) from error
    if not _agrees(found, points, expected):
        raise TraceError("the compiled graph gives other numbers")
    return found


def compiled_in_place(
    function: Callable[..., None], inputs: Inputs
) -> Callable[[Sequence[Tensor]], None]:
    """A function that writes into its inputs and returns nothing, compiled by PyTorch's inductor.

    Args:
        function: of tensors; it draws no random numbers, and its course does not depend on values.
        inputs: what it is traced on, and changes.

    Returns:
        A function of one sequence of such tensors. It is not held against the other.

    Raises:
        TraceError: the function does not allow it, or it cannot be compiled here.
    """

    def without_values(*inputs: Tensor) -> tuple[Tensor, ...]:
        function(*inputs)
        return ()

    module, checks = _graph(without_values, inputs)
    if checks:
        raise TraceError("it holds a factorisation that may fail")
    try:
        run = Traced(inductor(module, inputs), module, checks)
    except Exception as error:
        raise TraceError(_first_line(error)) from error

    def call(inputs: Sequence[Tensor]) -> None:
        run(*inputs)

    return call


def same(values: Inputs, others: Inputs) -> bool:
    """Whether tensors are equal in shape, layout, dtype and all numbers; NaN equals NaN."""
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride() and equal(a, b)
        for a, b in zip(values, others, strict=True)
    )


def _near(values: Inputs, others: Inputs) -> bool:
    """Whether tensors differ by what rounding adds up to, beside the largest number of each."""
    for a, b in zip(values, others, strict=True):
        tolerance = torch.finfo(b.dtype).eps ** 0.5
        scale = float(torch.where(b.isfinite(), b.abs(), 0.0).max()) if b.numel() else 0.0
        if not torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return False
    return True


def _values(function: Function, points: Sequence[Inputs]) -> list[tuple[Tensor, ...]]:
    """What the function gives, before it is traced.

    What it keeps for later calls must not hold what a trace puts in place of tensors.
    """
    try:
        return [function(*inputs) for inputs in points]
    except Exception as error:
        raise TraceError(_first_line(error)) from error


def _graph(function: Function, inputs: Inputs) -> tuple[Recording, int]:
    """The graph, cleaned, and how many of its outputs tell whether a factorisation failed."""
    try:
        module = recorded(function, inputs)
        checks = failures_as_outputs(module)
        clean(module)
    except NoGraphError as error:
        raise TraceError(str(error)) from error
    except Exception as error:
        raise TraceError(_first_line(error)) from error
    return module, checks


def _agrees(found: Traced, points: Sequence[Inputs], expected: Sequence[Inputs]) -> bool:
    try:
        return all(found.agrees(found(*x), y) for x, y in zip(points, expected, strict=True))
    except Exception:  # noqa: BLE001 (a runner that fails, or a point with no factorisation)
        return False


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers; NaN equals NaN."""
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _first_line(error: Exception) -> str:
    """What an error says, in short: torch's go on for pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
