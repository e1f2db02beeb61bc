"""Ways to run a graph, in the one place where they are chosen."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from nfvi.tracing.record import Recording
from nfvi.tracing.script import scripted

__all__ = ["Run", "inductor", "runners"]

Run = Callable[..., tuple[Tensor, ...]]
# torch.jit leaves with Python 3.14. Of what torch has in its place, nothing interprets a graph
# without compiling it first; the generated Python takes 1.3 to 3 times as long.
SCRIPTED = sys.version_info < (3, 14)
# No public part of torch either.
BELOW_AUTOGRAD: Any = getattr(torch._C, "_AutoDispatchBelowAutograd", nullcontext)


def runners(module: Recording, inputs: Sequence[Tensor]) -> Iterator[Run]:
    """Functions of tensors like these that run the graph, the fastest first."""
    # On another device the host is ahead of it, and a captured graph has no Python at all.
    if SCRIPTED and inputs[0].device.type == "cpu":
        yield from map(_interpreted, _scripts(module, inputs))
    yield _generated(module)


def inductor(module: Recording, inputs: Sequence[Tensor]) -> Run:
    """By code that is generated and compiled for this graph, whose sums may go in another order."""
    with torch.no_grad(), warnings.catch_warnings():
        # Of its own way of writing code, and that products could be rounded to ten bits.
        warnings.simplefilter("ignore")
        from torch._inductor import compile  # takes seconds to import

        run = compile(module.code(), list(inputs))

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(run(*inputs))

    return call


def _scripts(module: Recording, inputs: Sequence[Tensor]) -> Iterator[Run]:
    """What TorchScript's interpreter can run: written out here, and what torch traces itself."""
    with suppress(Exception):  # of another version of torch, which knows no such way
        yield scripted(module)
    yield _script(module, inputs)


def _script(module: Recording, inputs: Sequence[Tensor]) -> Run:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        script = torch.jit.trace(module.code(), tuple(inputs), check_trace=False)
        script = torch.jit.freeze(script.eval(), optimize_numerics=False)
    return script  # type: ignore[no-any-return]


def _interpreted(script: Run) -> Run:
    """A graph by TorchScript's interpreter, past what autograd does in each operation."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        # Without TorchScript's rewrites, as fused operations round otherwise. The setting is this
        # thread's own.
        optimized = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        with torch.no_grad(), BELOW_AUTOGRAD(), optimized:
            return script(*inputs)

    return run


def _generated(module: Recording) -> Run:
    code = module.code()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return code(*inputs)  # type: ignore[no-any-return]

    return run
