"""The work of a log-density, for functions whose operations can be counted by hand."""

from __future__ import annotations

import sys

import pytest
import torch

from nfvi import NFVI
from nfvi.targets import LogDensity, Target, log_prob_and_score, log_prob_anywhere
from nfvi.targets.work import numbers_per_point, points_at_once

anywhere = sys.modules["nfvi.targets.anywhere"]


def quadratic(z):
    """d products, their sum and its multiple: d + 2 numbers."""
    return (z * z).sum(-1) * -0.5


def counted(function, dim: int = 3, n: int = 10) -> float:
    target = LogDensity(function, dim)
    target.check()
    return numbers_per_point(target, torch.ones(n, dim))


@pytest.mark.parametrize("dim", [1, 3, 50])
def test_a_quadratic(dim):
    assert counted(quadratic, dim) == dim + 2


def test_a_matrix_of_data():
    """z X of d × 1 000 numbers, their squares, the sum and its negative."""
    x = torch.ones(3, 1_000)
    assert counted(lambda z: -((z @ x) ** 2).sum(-1)) == 2_002


def test_a_function_of_one_point():
    """It runs once for all points, and is counted for one of them."""

    def one(z):
        return (z * z).sum() * -0.5

    assert counted(one) == counted(one, n=40) == 5


def test_it_does_not_depend_on_the_number_of_points():
    assert counted(quadratic, n=1) == counted(quadratic, n=64)


def test_several_results_count_all():
    """Values and indices of d each, and the sum."""
    assert counted(lambda z: z.sort(-1)[0].sum(-1)) == 7


def test_no_gradient_is_left_behind():
    target = LogDensity(quadratic, 3)
    z = torch.ones(2, 3, requires_grad=True)
    numbers_per_point(target, z)
    assert z.grad is None and torch.is_grad_enabled()


class TestPieces:
    """A regression on 2 000 rows writes 8 002 numbers a point: 2 096 values make 2²⁴ of them."""

    @pytest.fixture
    def sizes(self) -> list[int]:
        return []

    @pytest.fixture
    def heavy(self, sizes) -> Target:
        x = torch.ones(3, 2_000, dtype=torch.float64)

        def log_p(z):
            sizes.append(len(z))
            return -((z @ x).square() + 1).log().sum(-1)

        target = LogDensity(log_p, 3, batched=True)
        numbers_per_point(target, torch.zeros(4, 3, dtype=torch.float64))
        sizes.clear()
        return target

    def points(self, n: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    def test_many_values_go_in_pieces_and_are_the_same(self, heavy, sizes):
        z = self.points(5_000)
        values = log_prob_anywhere(heavy, z)
        assert sizes == [2_096, 2_096, 808]
        assert values.equal(heavy.log_prob(z))

    def test_many_gradients_go_in_larger_pieces(self, heavy, sizes):
        z = self.points(9_000)
        log_p, score = log_prob_and_score(heavy, z)
        assert sizes == [8_386, 614]
        leaf = z.clone().requires_grad_()
        whole = heavy.log_prob(leaf)
        torch.testing.assert_close(log_p, whole.detach(), rtol=1e-13, atol=0)
        torch.testing.assert_close(
            score, torch.autograd.grad(whole.sum(), leaf)[0], rtol=1e-12, atol=1e-12
        )

    def test_many_values_have_the_gradients_of_their_pieces(self, heavy, sizes):
        z, weights = self.points(9_000), torch.linspace(-1, 1, 9_000, dtype=torch.float64)
        ours, whole = (z.clone().requires_grad_() for _ in range(2))
        found = (weights * log_prob_anywhere(heavy, ours)).sum()
        assert sizes == [8_386, 614]
        plain = (weights * heavy.log_prob(whole)).sum()
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)
        scores = [torch.autograd.grad(x, y)[0] for x, y in ((found, ours), (plain, whole))]
        torch.testing.assert_close(*scores, rtol=1e-12, atol=1e-12)

    def test_what_is_differentiated_may_be_one_piece(self, heavy, sizes):
        log_prob_anywhere(heavy, self.points(5_000).requires_grad_()).sum().backward()
        assert sizes == [5_000]

    def test_a_light_target_is_never_cut(self):
        target = LogDensity(quadratic, 3)
        z = torch.zeros(100_000, 3)
        assert points_at_once(target, z, 2**24) >= len(z)

    def test_what_a_piece_costs_is_spread_over_128_points(self):
        x = torch.ones(3, 10**6)
        target = LogDensity(lambda z: -(z @ x).sum(-1), 3, batched=True)
        assert points_at_once(target, torch.zeros(2_000, 3), 2**24) == 128

    @pytest.mark.parametrize("attribute", ["differentiable_once", "batching"])
    def test_targets_that_go_in_pieces_themselves_are_given_all(self, heavy, attribute):
        setattr(heavy, attribute, "loop" if attribute == "batching" else True)
        assert points_at_once(heavy, self.points(9_000), 2**24) == 9_000


@pytest.mark.parametrize(("most", "said"), [(32, "traced"), (2, "eager: ")])
def test_steps_of_a_heavy_target_go_in_pieces(most, said, monkeypatch):
    """Of 500 draws 4 pieces of 128, which are traced unless they are too many."""
    monkeypatch.setattr(anywhere, "OF_GRADIENTS", 2**10)
    monkeypatch.setattr(anywhere, "MOST", most)
    sizes: list[int] = []
    x = torch.linspace(-1, 1, 20)

    def log_p(z):
        sizes.append(len(z))
        return -((z * x).square() + 1).log().sum(-1) - z.square().sum(-1)

    target = LogDensity(log_p, 1, batched=True)
    how = {"steps": 100, "n_mc": 500, "restarts": 1, "anneal": 0.0, "progress": False}
    fits = [NFVI("scale-loc", seed=1).fit(target, compile=c, **how) for c in ("trace", False)]
    assert torch.equal(fits[0].history.elbo, fits[1].history.elbo)
    assert fits[0].settings["evaluation"].startswith(said)
    assert {128, 116} < set(sizes) and 500 not in sizes


def test_it_is_counted_once():
    calls = []
    target = LogDensity(lambda z: calls.append(1) or -z.square().sum(-1), 3, batched=True)
    first = numbers_per_point(target, torch.zeros(4, 3))
    calls.clear()
    assert numbers_per_point(target, torch.ones(4, 3)) == first and not calls
