"""How a user's function takes a batch of points: as it is, by vmap, or one point at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import (
    USER_ERRORS,
    WROTE,
    Evaluate,
    agree,
    point_text,
    shape_text,
    version_of,
    was_written,
)
from nfvi.utils import place_of

__all__ = ["Batching", "Given", "find_batching", "one_at_a_time"]

Batching = Literal["batch", "vmap", "loop"]


@dataclass(frozen=True)
class Given:
    """How messages call what a function is given.

    Attributes:
        what: after "cannot be used as a log-density".
        batch: that of several points.
        point: that of one.
        should: what it should take.
        name: that of what it takes.
    """

    what: str
    batch: str
    point: str
    should: str
    name: str

    @classmethod
    def vectors(cls, points: Tensor) -> Given:
        """Points z (n, d)."""
        n, d = points.shape
        return cls(
            f"with dim={d}",
            f"a batch z of shape ({n}, {d})",
            f"one point z of shape ({d},)",
            f"z (n, {d})",
            "z",
        )


@dataclass(frozen=True)
class _Attempt:
    """What came of one call: a tensor of the shape asked for, or the problem in words."""

    value: Tensor | None = None
    problem: str = ""
    error: BaseException | None = None


def one_at_a_time(fn: Callable[[Tensor], Tensor]) -> Evaluate:
    """A function of one point (d,) -> () as one of a batch (n, d) -> (n,), by a Python loop."""

    def loop(z: Tensor) -> Tensor:
        return torch.stack([fn(point) for point in z]) if len(z) else z.sum(-1)

    return loop


def find_batching(
    fn: Callable[[Tensor], Any],
    points: Tensor,
    name: str,
    batched: bool | None,
    given: Given | None = None,
) -> tuple[Evaluate, Batching, str]:
    """Decide how fn is to be called on a batch, by calling it on points (n, d) with n != d.

    Args:
        fn: a function of a batch (n, d) -> (n,) or of one point (d,) -> ().
        points: (n, d); n differs from d, so that rows cannot pass for columns.
        name: what messages call the function.
        batched: ``True`` or ``False`` where the user said which; ``None`` to find out.
        given: how messages call what fn is given; default points z.

    Returns:
        The function of a batch, how it works, and for a loop the reason why vmap failed.

    Raises:
        TargetError: neither reading fits; the message says what came back.
    """
    whole = _Attempt()
    if batched is not False:
        whole = _try_batch(fn, points)
        if whole.value is not None:
            return fn, "batch", ""
    single = _Attempt()
    if batched is not True:
        single = _attempt(fn, points[0], ())
        if single.value is not None:
            return _map_points(fn, points)
    words = given or Given.vectors(points)
    raise _refusal(whole, single, points, name, words) from (whole.error or single.error)


def _attempt(fn: Callable[[Tensor], Any], z: Tensor, shape: tuple[int, ...]) -> _Attempt:
    before, version = z.clone(), version_of(z)
    try:
        value = fn(z)
    except USER_ERRORS as error:
        said = f"it raised {type(error).__name__}: {error}{place_of(error, fn)}"
        return _Attempt(problem=said, error=error)
    if was_written(z, before, version):
        z.copy_(before)
        return _Attempt(problem=f"it {WROTE}")
    if not isinstance(value, Tensor):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        return _Attempt(problem=f"it returned a {kind}, not a torch tensor")
    if tuple(value.shape) != shape:
        return _Attempt(
            problem=f"it returned shape {shape_text(value.shape)} in place of {shape_text(shape)}"
        )
    return _Attempt(value=value.detach())


def _try_batch(fn: Callable[[Tensor], Any], points: Tensor) -> _Attempt:
    """Call fn on the batch and on each point as a batch of one; the values must be the same."""
    whole = _attempt(fn, points, (len(points),))
    if whole.value is None:
        return whole
    for i in range(len(points)):
        row = _attempt(fn, points[i : i + 1], (1,))
        if row.value is None:
            return _Attempt(problem=f"for a batch of one point {row.problem}", error=row.error)
        if not agree(whole.value[i : i + 1], row.value) and not _noisy(fn, points):
            return _Attempt(
                problem=f"a point alone gave {row.value.item():.6g} and within a batch "
                f"{whole.value[i].item():.6g}"
            )
    return whole


def _noisy(fn: Callable[[Tensor], Any], z: Tensor) -> bool:
    """Whether two calls at the same input differ, as those of a minibatch density do."""
    return not torch.equal(fn(z), fn(z))


def _map_points(fn: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Evaluate, Batching, str]:
    loop = one_at_a_time(fn)
    mapped = torch.func.vmap(fn, randomness="different")
    batch = _attempt(mapped, points, (len(points),))
    if batch.value is None:
        return loop, "loop", batch.problem
    if not agree(batch.value, loop(points).detach()) and not _noisy(fn, points[0]):
        return loop, "loop", "its values differ from those of single points"
    return mapped, "vmap", ""


def _refusal(
    whole: _Attempt, single: _Attempt, points: Tensor, name: str, given: Given
) -> TargetError:
    words = [f"{name!r} cannot be used as a log-density {given.what}."]
    if whole.problem and whole.problem == single.problem:
        words.append(f"Called with {given.batch}, and with {given.point}, {whole.problem}.")
    else:
        if whole.problem:
            words.append(f"Called with {given.batch}, {whole.problem}.")
        if single.problem:
            words.append(f"Called with {given.point}, {single.problem}.")
    if (whole.error or single.error) is not None:
        first = f", the first of them z = {point_text(points[0])}" if given.name == "z" else ""
        words.append(f"nfvi chose these values{first}.")
    words.append(_advice(whole.problem, single.problem, points, given))
    return TargetError(" ".join(words))


def _advice(whole: str, single: str, points: Tensor, given: Given) -> str:
    n, both = len(points), whole + single
    if WROTE in both:
        return "Points are used again after a call."
    if "not a torch tensor" in both:
        return (
            f"Return a tensor computed from {given.name} by torch functions, so that gradients"
            " exist."
        )
    if f"({n}, 1)" in whole or "returned shape (1,)" in single:
        return "Drop the last axis, for instance with .squeeze(-1) or .sum(-1)."
    if "dtype" in both:
        return (
            f"{given.name} is {points.dtype}: give constants that dtype, or pass dtype= to use"
            " another."
        )
    if "within a batch" in whole:
        return "Points of a batch must not influence one another: reduce over the last axis only."
    return f"It should take {given.should} and return (n,), or one point and return ()."
