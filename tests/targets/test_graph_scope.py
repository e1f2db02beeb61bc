"""Values and scores from graphs: the plain ones to the last bit, or the plain ones."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from nfvi import LogDensity, Target, as_target
from nfvi.targets import graphs, has_graph, log_prob_and_score, log_prob_anywhere
from nfvi.targets.graph_scope import CALLS
from tests.traced_targets import banana, fragile, schools


def in_turn(z: Tensor) -> Tensor:
    """One point at a time, for vmap cannot map what calls ``.item()``."""
    return -0.5 * (z**2).sum() * (1.0 if z[0].item() > 0 else 2.0)


class Elsewhere(Target):
    """One whose gradient torch does not see."""

    dim, name, differentiable_once = 2, "elsewhere", True

    def log_prob(self, z: Tensor) -> Tensor:
        return banana(z)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"z": z}


TARGETS = {
    "banana": lambda: LogDensity(banana, 2),
    "schools": lambda: as_target(schools, torch.tensor([28.0, 8.0, -3.0])),
    "fragile": lambda: LogDensity(fragile, 2),
}


def batches(dim: int, n: int = 2 * CALLS, points: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(points, dim, generator=generator) for _ in range(n)]


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) and a.stride() == b.stride()


def scores(target: Target, n: int = 2 * CALLS) -> list[tuple[Tensor, Tensor]]:
    return [log_prob_and_score(target, z) for z in batches(target.dim, n)]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_the_last_bit(name, dtype) -> None:
    target = TARGETS[name]()
    many = [2 * z.to(dtype) for z in batches(target.dim)]
    plain = [log_prob_and_score(target, z) for z in many]
    with torch.no_grad():
        values = [log_prob_anywhere(target, z) for z in many]
    assert name != "fragile" or any(value.isnan().any() for value in values)
    with graphs() as found, torch.no_grad():
        for z, value, (log_p, score) in zip(many, values, plain, strict=True):
            ours = log_prob_and_score(target, z)
            assert same(ours[0], log_p) and same(ours[1], score)
            assert same(log_prob_anywhere(target, z), value)
        assert found.text(target) == "traced"


def test_the_function_is_not_called_any_more() -> None:
    calls: list[int] = []

    def counted(z: Tensor) -> Tensor:
        calls.append(len(z))
        return banana(z)

    target = LogDensity(counted, 2)
    with graphs():
        scores(target, CALLS)
        before = len(calls)
        scores(target)
        assert len(calls) == before
    scores(target, 1)
    assert len(calls) == before + 1


def test_a_graph_is_made_at_once_for_many_batches_to_come() -> None:
    calls: list[int] = []

    def counted(z: Tensor) -> Tensor:
        calls.append(len(z))
        return banana(z)

    target = LogDensity(counted, 2)
    plain = scores(target)
    with graphs():
        few, many = batches(2, 1, points=4)[0], batches(2)
        log_prob_and_score(target, few, to_come=CALLS - 2)
        assert not has_graph("score", target, few)
        first = log_prob_and_score(target, many[0], to_come=CALLS - 1)
        assert has_graph("score", target, many[0]) and not has_graph("value", target, many[0])
        before = len(calls)
        found = [first, *(log_prob_and_score(target, z) for z in many[1:])]
        assert len(calls) == before
    assert all(same(a[0], b[0]) and same(a[1], b[1]) for a, b in zip(found, plain, strict=True))
    assert not has_graph("score", target, many[0])


def test_a_factor_of_the_log_density_is_no_matter() -> None:
    target = LogDensity(banana, 2)
    with graphs() as found:
        for z in batches(2):
            log_p, score = log_prob_and_score(target, z, 0.5)
            plain = log_prob_and_score(target, z)
            assert torch.equal(log_p, 0.5 * plain[0]) and torch.equal(score, 0.5 * plain[1])
    assert found.text(target) == "traced"


def test_gradients_through_values_are_left_to_autograd() -> None:
    target = LogDensity(banana, 2)
    with graphs():
        for z in batches(2):
            leaf = z.clone().requires_grad_()
            (score,) = torch.autograd.grad(log_prob_anywhere(target, leaf).sum(), leaf)
            assert torch.equal(score, log_prob_and_score(target, z)[1])


@pytest.mark.filterwarnings("ignore:.*one point at a time")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (LogDensity(lambda z: banana(z if bool(z.isfinite().all()) else 0 * z), 2), "on values"),
        (LogDensity(in_turn, 2), "draw by draw"),
        (Elsewhere(), "another library"),
    ],
)
def test_why_not(target, said) -> None:
    plain = scores(target)
    with graphs() as found:
        assert all(torch.equal(a[1], b[1]) for a, b in zip(scores(target), plain, strict=True))
    assert found.text(target).startswith("eager: ") and said in found.text(target)


def test_random_numbers_are_those_without_graphs() -> None:
    target = LogDensity(lambda z: banana(z) + torch.randn(len(z)), 2)
    found = []
    for on in (False, True):
        with torch.random.fork_rng(), graphs(on) as scope:
            torch.manual_seed(1)
            found.append(torch.stack([value for value, _ in scores(target)]))
    assert torch.equal(*found)
    assert "random numbers" in scope.text(target)


def test_few_calls_and_compile_false() -> None:
    target = LogDensity(banana, 2)
    with graphs() as found:
        scores(target, CALLS - 1)
    assert "often enough" in found.text(target)
    with graphs(on=False) as found:
        scores(target)
    assert found.text(target) == "eager: compile=False"


def test_a_target_that_changes_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr("nfvi.targets.graph_scope.LOOK_AGAIN", CALLS + 8)
    factor = np.ones(1)
    target = LogDensity(lambda z: banana(z) * float(factor[0]), 2)
    with graphs() as found:
        scores(target, CALLS + 7)
        factor[0] = 2.0
        z = batches(2, 1)[0]
        assert torch.equal(log_prob_and_score(target, z)[0], 2.0 * banana(z))
    assert "no longer" in found.text(target)


@pytest.mark.parametrize(("seconds", "made"), [(2.0, True), (0.5, False)])
def test_a_graph_that_takes_too_much_of_the_time(seconds, made, monkeypatch) -> None:
    """A plain call takes a thousandth of a second by this clock, a graph sixty times as much."""
    clock = itertools.count()
    stub = SimpleNamespace(perf_counter=lambda: next(clock) / 1e3)
    monkeypatch.setattr("nfvi.targets.graph_scope.time", stub)
    target = LogDensity(banana, 2)
    with graphs(seconds=seconds) as found:
        scores(target)
    assert (found.text(target) == "traced") is made
    assert made or "budget" in found.text(target)


def test_torch_s_compiler_is_not_imported() -> None:
    """It takes two seconds."""
    script = (
        "import sys, torch; from nfvi.tracing import traced; "
        "traced(lambda x: (x.exp(),), [(torch.ones(2),)]); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_scope_within_a_scope_is_the_same() -> None:
    with graphs(on=False) as outer, graphs() as inner:
        assert inner is outer
    with graphs() as fresh:
        assert fresh is not outer


def test_another_thread_is_outside() -> None:
    target, made = LogDensity(banana, 2), []
    with graphs() as found:
        thread = threading.Thread(target=lambda: made.append(scores(target)))
        thread.start()
        thread.join()
    assert made and "often enough" in found.text(target)
