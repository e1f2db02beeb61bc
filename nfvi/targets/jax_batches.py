"""Functions of JAX on batches of torch's points: compiled, in the dtype and on the device of z."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nfvi.utils import quiet_log

__all__ = ["OnBatches", "jax_package", "points_at_once", "precision", "work_of"]

NO_JAX = "{what} needs JAX, the extra `jax`: pip install 'nfvi[jax]'"
# 256 MB in float64; XLA keeps only some of what a function writes.
AT_ONCE = 2**25
FEWEST = 128
# Each takes 0.2 to 1 s to compile, a call some tenths of a millisecond. Gradients of GARCH in
# NumPyro take 1 ms for 16 points, 1.9 for 128, 3, 3.9 and 5.7 for the next three, and 47 for 4 096.
# 16 would save 0.04 s of a climb, and take 1.2 to compile. Most batches of a hierarchical model
# have 256 points, where filling up to 512 costs more than it saves.
SIZES = (1, 128, 256, 512, 1024, 4096, 16384)
# From here on a batch is no longer filled up, but goes in several.
WHOLE = 1024


def jax_package(what: str) -> Any:
    """The module ``jax``, without its word on a GPU that it cannot use.

    Args:
        what: needs it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import jax
    except ImportError as error:
        raise ImportError(NO_JAX.format(what=what)) from error
    # It looks for devices once, and logs that it was built without those that it finds.
    with quiet_log("jax._src.xla_bridge", logging.WARNING):
        jax.devices()
    return jax


def precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """JAX's switch for float64, for this thread and while it is entered; else as it is."""
    if dtype != torch.float64:
        return nullcontext()
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)  # type: ignore[no-any-return]
    from jax.experimental import enable_x64  # before JAX 0.8

    return enable_x64()  # type: ignore[no-any-return]


class OnBatches:
    """A function of one point (d,) to arrays, as one of a batch of torch's points (n, d).

    Its Python runs once; it is mapped by ``jax.vmap`` and compiled for a few numbers of points. A
    batch goes in such pieces, the last of them filled up by copies of its last point. Memory is
    shared by DLPack where both libraries know the device; else z goes by way of the CPU.

    Args:
        fn: the function; its values may be any tree of arrays.
        most: points at once.
        transform: such as ``jax.value_and_grad``, of the function of one point.
        shared: how many arrays the function takes behind the point, the same for all points.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        most: int,
        transform: Callable[[Any], Any] = lambda fn: fn,
        shared: int = 0,
    ) -> None:
        import jax

        def one(*point: Any) -> Any:  # a new one, as JAX keeps what it knows of a function
            return fn(*point)

        axes = (0, *(None,) * shared)
        self._compiled = jax.jit(jax.vmap(_Once(transform(one)), in_axes=axes))
        self._most = most

    def __call__(self, z: Tensor, *shared: Any) -> Any:
        """The same tree of tensors (n, \\*shape), apart from autograd."""
        import jax

        z = z.detach()
        pieces = z.split(_pieces(len(z), self._most)) if len(z) else (z,)
        found = [self._piece(piece, shared) for piece in pieces]
        if len(found) == 1:
            return found[0]
        return jax.tree.map(lambda *parts: torch.cat(parts), *found)

    def _piece(self, z: Tensor, shared: tuple[Any, ...]) -> Any:
        import jax

        with precision(z.dtype):
            points = _to_jax(_filled(z, _rung(len(z))))
            # Not left to run on, as z may be written into as soon as this returns.
            values = jax.block_until_ready(self._compiled(points, *shared))
            return jax.tree.map(lambda x: _to_torch(x, z.device)[: len(z)], values)


def work_of(fn: Callable[[Any], Any], dim: int, dtype: torch.dtype) -> float:
    """Numbers that the operations of a function of one point (d,) write."""
    import jax

    with precision(dtype):
        return _written(jax.make_jaxpr(lambda point: fn(point))(jax.numpy.zeros(dim)).jaxpr)


def points_at_once(work: float, *, of_rows: bool = False) -> int:
    """How many points at once go through a function that writes so many numbers for each.

    Args:
        work: the numbers.
        of_rows: whether these are for so many rows of data that one point may be enough.
    """
    return max(int(AT_ONCE / max(work, 1.0)), 1 if of_rows else FEWEST)


def _written(program: Any) -> float:
    total = 0.0
    for equation in program.eqns:
        inner = [_written(part) for part in _parts(equation.params)]
        # A while loop says nothing of how often it runs: once is the least.
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        own = sum(math.prod(getattr(out.aval, "shape", ())) for out in equation.outvars)
        total += times * sum(inner) if inner else own
    return float(total)


def _parts(params: dict[str, Any]) -> Iterator[Any]:
    """The programs within an operation."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            program = getattr(part, "jaxpr", part)
            if hasattr(program, "eqns"):
                yield program


class _Once:
    """A function of arrays whose Python runs at its first call with such arrays, and not again."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._programs: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def __call__(self, *inputs: Any) -> Any:
        import jax
        from jax.extend.core import jaxpr_as_fun

        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in self._programs:
            program, shapes = jax.make_jaxpr(self._fn, return_shape=True)(*inputs)
            self._programs[key] = jaxpr_as_fun(program), jax.tree.structure(shapes)
        run, tree = self._programs[key]
        return jax.tree.unflatten(tree, run(*inputs))


def _pieces(n: int, most: int) -> list[int]:
    """The sizes of the pieces in which a batch of n goes, none above ``most``."""
    possible = [size for size in reversed(SIZES) if size <= most]
    found: list[int] = []
    for size in [size for size in possible if size >= WHOLE] or possible[:1]:
        found += [size] * (n // size)
        n %= size
    return [*found, n] if n else found


def _rung(n: int) -> int:
    """For how many points the function is compiled that takes n."""
    return next((size for size in SIZES if size >= n), n)


def _filled(z: Tensor, rows: int) -> Tensor:
    if len(z) == rows:
        return z.contiguous()
    last = z[-1:] if len(z) else z.new_zeros(1, z.shape[1])
    return torch.cat([z, last.expand(rows - len(z), -1)])


def _to_jax(z: Tensor) -> Any:
    import jax

    if z.device.type == "cuda" and not _sees_cuda():
        z = z.cpu()
    return jax.dlpack.from_dlpack(z)


def _to_torch(x: Any, device: torch.device) -> Tensor:
    if x.dtype == bool:  # which DLPack was late to know
        return from_dlpack(x.astype("uint8")).bool().to(device)
    return from_dlpack(x).to(device)


def _sees_cuda() -> bool:
    import jax

    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False
