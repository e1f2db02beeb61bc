"""Functions that a graph calls without looking inside."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from nfvi.tracing import opaque, traced
from nfvi.tracing import runners as runners_module

Pair = tuple[Tensor, Tensor]


class Quartic:
    """−Σ z⁴ and its gradient by NumPy, and what it was asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: BaseException | None = None

    def __call__(self, z: Tensor) -> Pair:
        self.calls += 1
        if self.error is not None:
            raise self.error
        x = z.numpy()
        return torch.from_numpy(-np.sum(x**4, 1)), torch.from_numpy(-4 * x**3)


def points(n: int = 2) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(5, 3, generator=generator),) for _ in range(n)]


def use_of(function: Quartic):
    def use(x: Tensor) -> tuple[Tensor, ...]:
        value, gradient = opaque(function, 2 * x)
        return value.exp(), gradient * x

    return use


@pytest.fixture(params=[True, False], ids=["interpreted", "generated"])
def _runner(request, monkeypatch):
    monkeypatch.setattr(runners_module, "SCRIPTED", request.param)


@pytest.mark.usefixtures("_runner")
class TestInAGraph:
    def test_the_same_numbers(self):
        use, other = use_of(Quartic()), points(3)[-1]
        run = traced(use, points())
        assert all(map(torch.equal, run(*other), use(*other)))

    def test_it_is_called_once_a_run(self):
        function = Quartic()
        run = traced(use_of(function), points())
        before = function.calls
        run(*points()[0])
        assert function.calls == before + 1

    @pytest.mark.parametrize("error", [ValueError("no density"), TypeError("no density")])
    def test_an_error_is_one_of_the_graph_and_tells_of_itself(self, error):
        function = Quartic()
        run = traced(use_of(function), points())
        function.error = error
        with pytest.raises(RuntimeError, match=f"{type(error).__name__}: no density"):
            run(*points()[0])
        function.error = None
        run(*points()[0])

    def test_ctrl_c_is_none(self):
        function = Quartic()
        run = traced(use_of(function), points())
        function.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run(*points()[0])

    def test_threads_at_once(self):
        runs = [traced(use_of(Quartic()), points()) for _ in range(2)]
        expected, found = runs[0](*points()[1]), {}

        def many(k: int) -> None:
            found[k] = [runs[k % 2](*points()[1]) for _ in range(20)]

        threads = [threading.Thread(target=many, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(
            all(map(torch.equal, one, expected)) for several in found.values() for one in several
        )


def test_two_functions_stay_apart():
    def use(x: Tensor) -> tuple[Tensor, ...]:
        return *opaque(Quartic(), x), *opaque(lambda z: (z.sum(1), torch.ones_like(z)), x)

    (x,) = points()[0]
    value, _, total, ones = traced(use, points())(x)
    torch.testing.assert_close(value, -(x**4).sum(1))
    assert torch.equal(total, x.sum(1)) and torch.equal(ones, torch.ones_like(x))


def test_a_graph_keeps_what_it_calls_and_nothing_else_does():
    function = Quartic()
    alive, run = weakref.ref(function), traced(use_of(function), points())
    del function
    gc.collect()
    assert alive() is not None
    run(*points()[0])
    del run
    gc.collect()
    assert alive() is None


def test_outside_of_a_graph_it_is_a_call():
    function = Quartic()
    (x,) = points()[0]
    assert all(map(torch.equal, opaque(function, x), function(x)))
