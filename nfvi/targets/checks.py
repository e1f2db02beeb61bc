"""What a log-density must satisfy: probe points, agreement, checks of value and gradient."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.utils import place_of, process_wide

__all__ = [
    "USER_ERRORS",
    "agree",
    "check_dtype",
    "check_values",
    "checked_call",
    "fixed_randomness",
    "isolated",
    "name_of",
    "needed_arguments",
    "point_text",
    "probe_points",
    "shape_text",
]

Evaluate = Callable[[Tensor], Tensor]

# What a function that is handed an input it was not written for raises. Anything else
# (KeyboardInterrupt, MemoryError, a library's own exceptions) is not ours to interpret.
USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

WROTE = (
    "wrote into z, which it was only to read; let it work on a copy, z = z.clone(), or do without"
    " +=, z[...] = and methods that end in _"
)
FLAT_PROBES = 8
SHIFTS = (-1e8, -1e3, -30.0, -3.0, -0.5, 0.5, 3.0, 30.0, 1e3, 1e8)
"""By how much a coordinate is moved to see whether a density depends on it."""
MOST_FLAT = 20
"""Coordinates without a gradient that are moved; a density of many that are flat has one here."""

# Two evaluation orders of one sum differ by rounding; a wrong batching differs by whole terms. Not
# measured: 10⁴ units of rounding in float32; tighter, long sums with cancellation would be refused.
_RTOL = {torch.float64: 1e-6, torch.float32: 1e-3}


def shape_text(shape: Iterable[int | str]) -> str:
    """A shape as users write it: ``(2,)``, ``(n, 3)``, ``()``."""
    words = [str(size) for size in shape]
    return f"({words[0]},)" if len(words) == 1 else f"({', '.join(words)})"


def probe_points(n: int, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Points (n, dim), the same at every call, spread like a standard normal.

    They come from a generator of their own, so that the global random state stays as it is. The
    second lies across the origin from the first: of a support that is a half-space through it,
    one of them is inside. It is nearer, lest a symmetric density have one value at both.
    """
    generator = torch.Generator(device="cpu").manual_seed(20)
    points = torch.randn(n, dim, generator=generator, dtype=torch.float64, device="cpu")
    points[1:2] = -0.7 * points[:1]
    return points.to(dtype=dtype, device=device)


@contextmanager
def fixed_randomness(seed: int = 0) -> Iterator[None]:
    """Torch's random state set by a seed, and put back on leaving; threads take turns."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with process_wide(), torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def isolated(seed: int = 0) -> Iterator[None]:
    """For a trial run: random state fixed and put back, gradients on, warnings silent."""
    with (
        fixed_randomness(seed),
        torch.inference_mode(False),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def agree(a: Tensor, b: Tensor) -> bool:
    """Whether two evaluations of the same log-densities differ by no more than rounding."""
    tolerance = max(_RTOL.get(a.dtype, 0.05), _RTOL.get(b.dtype, 0.05))
    wide = torch.float64 if a.device.type != "mps" else torch.float32
    return torch.allclose(a.to(wide), b.to(wide), rtol=tolerance, atol=tolerance, equal_nan=True)


def checked_call(evaluate: Evaluate, z: Tensor, name: str) -> Tensor:
    """Values (n) at points z (n, d) of a log-density that may have changed since it was checked.

    Raises:
        TargetError: they are not (n), or z was written into.
    """
    version = version_of(z)
    values = evaluate(z)
    if version_of(z) != version:
        raise TargetError(f"{name!r} {WROTE}")
    if not isinstance(values, Tensor) or values.shape != z.shape[:1]:
        got = f"shape {shape_text(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise TargetError(
            f"{name!r} returned {got} for z of shape {shape_text(z.shape)}, and another when it was"
            f" checked; it must always return shape {shape_text(z.shape[:1])}"
        )
    return values


def was_written(z: Tensor, before: Tensor, version: int) -> bool:
    """Whether a call wrote into z, which held ``before`` and had this version."""
    return version_of(z) != version or not torch.equal(z, before)


def version_of(z: Tensor) -> int:
    """How often torch has seen z written to."""
    return 0 if z.is_inference() else z._version


class Checked(NamedTuple):
    """What a log-density was found to be.

    Attributes:
        dtype: of its values: that of the points, or a wider one which the caller may narrow.
        flat: coordinates on which it does not depend, so that it is improper; 20 at most.
    """

    dtype: torch.dtype
    flat: tuple[int, ...]


def check_values(evaluate: Evaluate, points: Tensor, name: str) -> Checked:
    """Check dtype, finiteness and gradient of a log-density at points (n, d).

    Raises:
        TargetError: the values are of a narrower dtype than the points, NaN or +inf somewhere,
            finite nowhere, or have no finite gradient.
    """
    leaf = points.detach().clone().requires_grad_()
    with _with_gradients(points, name):
        values = evaluate(leaf)
    check_dtype(values, points, name)
    _check_finite(values.detach(), points, name)
    gradient = _check_gradient(values, leaf, name)
    still = (gradient == 0).all(0).nonzero().flatten().tolist()[:MOST_FLAT]
    flat = tuple(column for column in still if not _depends_on(evaluate, points, column))
    return Checked(values.dtype, flat)


@contextmanager
def _with_gradients(points: Tensor, name: str) -> Iterator[None]:
    """For the first call that autograd follows, after others that went well.

    Raises:
        TargetError: the user's function raised.
    """
    try:
        yield
    except TargetError:
        raise
    except USER_ERRORS as error:
        raise TargetError(
            f"{name!r} has values, and raised {type(error).__name__} when its gradient was taken:"
            f" {error}{place_of(error)}. nfvi chose the points, the first of them"
            f" z = {point_text(points[0])}. Write it in torch functions throughout: .numpy(), numpy"
            " and math leave autograd"
        ) from error


def _depends_on(evaluate: Evaluate, points: Tensor, column: int) -> bool:
    """Whether the values change with one coordinate, here or far away.

    A gradient of 0 does not say so: a density may be flat near the origin, as within the bounds of
    a support, and still end somewhere.
    """
    n, dim = points.shape
    more = probe_points(n + FLAT_PROBES, dim, points.dtype, points.device)
    moved = more.repeat(len(SHIFTS) + 1, 1, 1)
    moved[1:, :, column] += torch.tensor(SHIFTS).to(points).unsqueeze(1)
    try:
        values = evaluate(moved.flatten(0, 1)).detach().unflatten(0, moved.shape[:2])
    except USER_ERRORS:
        return True
    values = values[:, values[0].isfinite()]
    return not values.numel() or not agree(values[1:], values[:1].expand_as(values[1:]))


def check_dtype(values: Tensor, points: Tensor, name: str) -> None:
    """Check that the values of a log-density are real, and in no narrower dtype than the points.

    Raises:
        TargetError: they are not.
    """
    if not values.is_floating_point():
        raise TargetError(f"{name!r} returned {values.dtype}; a log-density is a real number")
    if torch.finfo(values.dtype).bits < torch.finfo(points.dtype).bits:
        raise TargetError(
            f"{name!r} was given z in {points.dtype} and returned {values.dtype}, which loses "
            "precision; build constants inside it with dtype=z.dtype"
        )


def _check_finite(values: Tensor, points: Tensor, name: str) -> None:
    bad = values.isnan() | (values == torch.inf)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise TargetError(
            f"{name!r} is {values[i].item()} at z = {point_text(points[i])}; it must be finite, "
            "or -inf outside the support"
        )
    if not values.isfinite().any():
        raise TargetError(
            f"{name!r} is -inf at every point tried, {point_text(points[0])} among them; "
            "z ranges over all of R^d, so for positive or bounded parameters name them, as in "
            "parameters={'tau': 'positive', 'phi': (0, 1)}; or else shift, scale or transform z"
        )


def _check_gradient(values: Tensor, leaf: Tensor, name: str) -> Tensor:
    """The gradient (m, d) where the values are finite."""
    finite = values.detach().isfinite()
    total = values[finite].sum()
    gradient = None
    if total.requires_grad:
        with _with_gradients(leaf.detach(), name):
            (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
    if gradient is None:
        raise TargetError(
            f"{name!r} has no gradient with respect to z: it does not depend on z, or leaves torch "
            "on the way (numpy, math, .item(), .detach(), torch.tensor(z)); use torch functions"
        )
    bad = ~gradient[finite].isfinite().all(-1)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise TargetError(
            f"the gradient of {name!r} is {point_text(gradient[finite][i])} at "
            f"z = {point_text(leaf.detach()[finite][i])}, where its value is finite; "
            "look for sqrt, norm, pow or where with a branch that is not finite there"
        )
    return gradient[finite]


def point_text(point: Tensor) -> str:
    """A point (d) in four coordinates at most."""
    shown = ", ".join(f"{x:.4g}" for x in point[:4].tolist())
    return f"({shown}{', ...' if len(point) > 4 else ''})"


def name_of(fn: Any) -> str:
    """What tables and figures call a function."""
    name = getattr(fn, "__name__", "") or type(fn).__name__
    return "log-density" if name == "<lambda>" else str(name)


def needed_arguments(arguments: Iterable[inspect.Parameter]) -> list[inspect.Parameter]:
    """Those of a function's arguments that every call must give."""
    collects = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [a for a in arguments if a.default is a.empty and a.kind not in collects]
