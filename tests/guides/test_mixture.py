"""A mixture of guides: its density, the shares of its draws, and what it refuses."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nfvi import FitError, Guide, MixtureGuide
from nfvi.guides.mixture import parts
from nfvi.guides.placement import Placement

FIVE = 5.0
"""Standard errors allowed: false alarms come once in two million checks."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def guide_at(x: float, formula: str = "planar*3", seed: int = 0) -> Guide:
    place = Placement(torch.tensor([x, 0.0]), torch.tensor([[1.0, 0.0], [0.4, 0.7]]))
    return Guide(
        formula, 2, jitter=0.3, placement=place, generator=seeded(seed), dtype=torch.float64
    )


@pytest.fixture
def three() -> MixtureGuide:
    """Components that overlap, of two formulas, one of them without a placement."""
    plain = Guide("scale-loc", 2, jitter=0.3, generator=seeded(2), dtype=torch.float64)
    return MixtureGuide([guide_at(-2), guide_at(3, seed=1), plain], [2.0, 1.0, 1.0])


class TestDensity:
    def test_it_is_the_weighted_sum(self, three: MixtureGuide) -> None:
        x = 3 * torch.randn(5, 4, 2, dtype=torch.float64)
        a, b, c = three.guides
        by_hand = 0.5 * a.log_prob(x).exp() + 0.25 * (b.log_prob(x).exp() + c.log_prob(x).exp())
        torch.testing.assert_close(three.log_prob(x), by_hand.log())
        torch.testing.assert_close(three.log_parts(x).logsumexp(0), three.log_prob(x))

    def test_it_is_that_of_gaussians(self) -> None:
        guides = [Guide("scale-loc", 2, jitter=1.0, generator=seeded(i)) for i in range(2)]
        mixed = MixtureGuide(guides, torch.tensor([0.9, 0.1]))
        x = torch.randn(50, 2)
        logs = []
        for guide, weight in zip(guides, (0.9, 0.1), strict=True):
            sd = torch.nn.functional.softplus(guide.flows[0].rho)
            normal = torch.distributions.Normal(guide.flows[1].loc, sd)
            logs.append(normal.log_prob(x).sum(-1) + math.log(weight))
        torch.testing.assert_close(mixed.log_prob(x), torch.stack(logs).logsumexp(0))

    def test_it_integrates_to_one(self, three: MixtureGuide) -> None:
        # The trapezoid rule on a smooth density that vanishes at the edges is exact to rounding;
        # a few percent of a mode lost outside ±14 would show.
        axis = torch.linspace(-14, 14, 701, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        total = three.log_prob(grid).detach().exp().sum() * (axis[1] - axis[0]) ** 2
        assert float(total) == pytest.approx(1, abs=1e-4)

    def test_far_away_it_is_finite(self, three: MixtureGuide) -> None:
        x = torch.tensor([[1e6, -1e6]], dtype=torch.float64)
        assert bool(three.log_prob(x).isfinite().all())

    def test_points_of_another_dimension(self, three: MixtureGuide) -> None:
        with pytest.raises(ValueError, match="must be dim=2"):
            three.log_prob(torch.zeros(3, dtype=torch.float64))


class TestDraws:
    def test_log_q_is_log_prob(self, three: MixtureGuide) -> None:
        x, log_q = three.rsample_and_log_prob(40, generator=seeded(0))
        torch.testing.assert_close(log_q, three.log_prob(x))
        assert torch.equal(three.sample(40, generator=seeded(0)), x)
        assert not three.sample(2).requires_grad

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 101])
    def test_shares_are_kept_to_within_one(self, three: MixtureGuide, n: int) -> None:
        generator = seeded(n)
        counts = torch.tensor([three.counts(n, generator) for _ in range(400)])
        assert bool((counts.sum(1) == n).all())
        assert bool(((counts - n * three.weights).abs() < 1).all())
        # A count is one of two neighbours, with a variance of 1/4 at most.
        error = FIVE * math.sqrt(0.25 / 400)
        assert bool(((counts.double().mean(0) - n * three.weights).abs() < error).all())

    def test_components_of_no_weight_to_speak_of_give_no_draws(self) -> None:
        far = MixtureGuide([guide_at(-50), guide_at(50)], [1.0, 1e-9])
        assert bool((far.sample(1000, generator=seeded(0))[:, 0] < 0).all())

    def test_the_order_tells_nothing_of_the_component(self) -> None:
        mixed = MixtureGuide([guide_at(-50), guide_at(50)], [0.5, 0.5])
        left = mixed.sample(2000, generator=seeded(0))[:, 0] < 0
        assert int(left.sum()) == 1000
        # 1 000 draws out of 2 000 without replacement: a variance of 250 · 1/2.
        assert abs(int(left[:1000].sum()) - 500) < FIVE * math.sqrt(125)

    def test_gradient_in_the_parameters_of_a_component(self, three: MixtureGuide) -> None:
        """That of a sum over fixed draws, against differences: error h² and rounding / h."""

        def value() -> Tensor:
            x, log_q = three.rsample_and_log_prob(12, generator=seeded(1))
            return (log_q + x.square().sum(-1)).sum()

        loc = three.guides[2].flows[1].loc
        (gradient,) = torch.autograd.grad(value(), loc)
        for i in range(2):
            ends = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    loc[i] += step
                    ends.append(float(value()))
                    loc[i] -= step
            assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)

    def test_distribution(self, three: MixtureGuide) -> None:
        q = three.distribution()
        assert q.event_shape == (2,) and q.rsample().shape == (2,)
        draws = q.sample((3, 5))
        assert draws.shape == (3, 5, 2)
        torch.testing.assert_close(q.log_prob(draws), three.log_prob(draws))
        assert q.rsample((4,)).requires_grad


class TestModule:
    def test_state_dict_round_trip(self, three: MixtureGuide) -> None:
        other = copy.deepcopy(three)
        with torch.no_grad():
            for value in other.state_dict().values():
                value.zero_()
        other.load_state_dict(three.state_dict())
        x = torch.randn(9, 2, dtype=torch.float64)
        assert torch.equal(other.log_prob(x), three.log_prob(x))
        assert "log_weights" not in dict(three.named_parameters())

    def test_a_copy_is_a_copy(self, three: MixtureGuide) -> None:
        other = copy.deepcopy(three)
        x = torch.zeros(1, 2, dtype=torch.float64)
        before = three.log_prob(x)
        with torch.no_grad():
            other.guides[0].flows[0].w.add_(1.0)
        assert torch.equal(three.log_prob(x), before)

    def test_another_dtype(self, three: MixtureGuide) -> None:
        single = copy.deepcopy(three).to(torch.float32)
        assert single.dtype == torch.float32 and single.sample(3).dtype == torch.float32
        x = torch.randn(9, 2)
        # Root finds in float32 leave a few times 1e-5.
        torch.testing.assert_close(
            single.log_prob(x).double(), three.log_prob(x.double()), atol=1e-3, rtol=1e-3
        )

    def test_what_it_says_of_itself(self, three: MixtureGuide) -> None:
        assert torch.equal(three.weights, torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
        assert (three.dim, three.context_dim, str(three.base)) == (2, 0, "normal")
        assert str(three.formula) == "planar*3"
        assert str(three) == "mixture of 3 planar*3 and scale-loc"
        assert repr(three) == (
            "MixtureGuide of 3 planar*3 and scale-loc with weights 0.500, 0.250, 0.250"
        )
        assert parts(three) == three.guides and parts(three.guides[0]) == (three.guides[0],)

    @pytest.mark.cuda
    def test_cuda(self, three: MixtureGuide) -> None:
        there = copy.deepcopy(three).to("cuda")
        generator = torch.Generator("cuda").manual_seed(0)
        x, log_q = there.rsample_and_log_prob(10, generator=generator)
        assert x.device.type == log_q.device.type == "cuda"


class TestRefusals:
    @pytest.mark.parametrize("name", ["transform", "inverse", "base_sample", "forward"])
    def test_there_is_no_one_map_from_the_base(self, three: MixtureGuide, name: str) -> None:
        with pytest.raises(FitError, match=r"no single map from its base.*components\[0\]"):
            getattr(three, name)(torch.zeros(1, 2))

    @pytest.mark.parametrize(
        "weights",
        [
            *([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 1.0]]),
            *(["a", "b"], None, 1.0),
        ],
    )
    def test_wrong_weights(self, weights: Any) -> None:
        with pytest.raises(ValueError, match=r"weights must be 2 positive numbers.* got "):
            MixtureGuide([guide_at(0), guide_at(1)], weights)

    def test_a_guide_is_no_list_of_guides(self) -> None:
        with pytest.raises(ValueError, match="components must be a list of guides, got Guide"):
            MixtureGuide(guide_at(0), [1.0])

    @pytest.mark.parametrize(
        ("other", "word"),
        [
            (Guide("loc", 3, dtype=torch.float64), "one dim"),
            (Guide("loc", 2, dtype=torch.float32), "one dtype"),
            (Guide("iaf", 2, context_dim=1, dtype=torch.float64), "without context"),
            ("planar", "must be guides"),
        ],
    )
    def test_components_that_do_not_go_together(self, other: Guide, word: str) -> None:
        with pytest.raises(ValueError, match=word):
            MixtureGuide([guide_at(0), other], [1.0, 1.0])

    def test_no_component(self) -> None:
        with pytest.raises(ValueError, match="at least one guide"):
            MixtureGuide([], [])
