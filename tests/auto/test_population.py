"""A mixture of Gaussians fitted to its own weighted draws, on targets whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import pot1
from nfvi import NFVI, Budget, Fit, FitError, Guide, LogDensity, MixtureGuide, Target, TargetError
from nfvi.auto import population as module
from nfvi.auto.gaussians import keep_guide
from nfvi.auto.normal_mixture import NormalMixture
from nfvi.auto.population import ENOUGH, MOST, POOL, Population, Seen, populate
from nfvi.auto.record import Record
from nfvi.fit import evaluate
from nfvi.fit.text import describe
from nfvi.starts import gaussian_guide

LOG_Z_OF_THE_RING = 2.063668
"""∫ exp(−(‖z‖ − 5)² / 0.02) dz = 2π ∫ r exp(−(r − 5)² / 0.02) dr, to 1e-6."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ring(z: Tensor) -> Tensor:
    return -0.5 * ((z.norm(dim=-1) - 5) / 0.1).square()


class Nowhere(Target):
    """A density that is 0 everywhere."""

    dim, name = 2, "nowhere"

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.full_like(z[..., 0], -torch.inf)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"z": z}


def record_of(target: Target, guide: Guide, budget: Budget | None = None) -> Record:
    """A record that holds one Gaussian."""
    record = Record(target, 0, budget or Budget(), {})
    keep_guide(record, guide)
    return record


def wide(dim: int, sd: float = 3.0) -> Guide:
    return gaussian_guide(torch.zeros(dim), sd * torch.eye(dim), torch.float32)


def kl(guide: Guide | MixtureGuide, target: Target, log_z: float) -> tuple[float, float]:
    """KL(q ‖ p) and its standard error."""
    found = evaluate(guide, target, 20_000, seeded(5), keep=0)
    ratio = log_z - found.log_p.double() + found.log_q.double()
    return float(ratio.mean()), float(ratio.std()) / len(ratio) ** 0.5


class TestFromOneWideGaussian:
    def test_both_modes_of_pot1(self) -> None:
        record = record_of(pot1, wide(2))
        populate(record, seeded(1), torch.float32)
        found, error = kl(record.tried[-1].guide, pot1, pot1.log_normalizer)
        assert found < 0.004 + 5 * error
        assert record.last.efficiency > 0.99
        draws = record.tried[-1].guide.sample(2_000, generator=seeded(2))
        assert 0.4 < float((draws[:, 0] > 0).double().mean()) < 0.6

    def test_a_ring(self) -> None:
        target = LogDensity(ring, 2)
        record = record_of(target, wide(2))
        populate(record, seeded(1), torch.float32)
        found, error = kl(record.tried[-1].guide, target, LOG_Z_OF_THE_RING)
        assert found < 0.01 + 5 * error
        assert 20 < record.last.components <= MOST

    def test_a_component_on_two_modes_is_halved_near_the_most(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of eight modes two share one of nine components, and two of them share a mode."""
        monkeypatch.setattr(module, "MOST", 10)
        places = torch.tensor([[10.0 * i, 4.0 * (i % 2)] for i in range(8)])

        def log_p(z: Tensor) -> Tensor:
            distance = (z.unsqueeze(-2) - places).square().sum(-1)
            return (-0.5 * distance).logsumexp(-1) - math.log(16 * math.pi)

        target = LogDensity(log_p, 2)
        means = torch.cat([places[:1], places[:1], places[:6], places[6:].mean(0, keepdim=True)])
        guides = [gaussian_guide(mean, torch.eye(2), torch.float32) for mean in means[:-1]]
        guides.append(
            gaussian_guide(means[-1], torch.diag(torch.tensor([5.0, 2.0])), torch.float32)
        )
        shares = torch.tensor([1.0] * 8 + [2.0])
        record = Record(target, 0, Budget(), {})
        keep_guide(record, MixtureGuide(guides, shares / shares.sum()))
        populate(record, seeded(1), torch.float32)
        found, error = kl(record.tried[-1].guide, target, 0.0)
        assert record.last.components == 10
        assert found < 0.01 + 5 * error

    def test_costs_are_counted(self) -> None:
        calls = []

        def log_p(z: Tensor) -> Tensor:
            calls.append(len(z))
            return -0.5 * z.square().sum(-1) - 0.1 * z[..., 0] ** 4

        target = LogDensity(log_p, 2)
        record = record_of(target, wide(2, 1.0))
        calls.clear()
        batches = record.batches
        populate(record, seeded(1), torch.float32)
        judged = sum(calls) - record.values
        # What is over judges the rung: 10 000 draws, and those of its components.
        assert 10_000 <= judged <= 10_000 + 40_000
        assert record.batches - batches >= 2
        assert record.gradients == 0
        assert record.path("").value_evaluations == record.values > 0


class TestWhatItLeavesAlone:
    def test_more_than_five_dimensions(self) -> None:
        record = record_of(LogDensity(lambda z: -z.square().sum(-1), 6), wide(6))
        populate(record, seeded(1), torch.float32)
        assert (len(record.rungs), record.values) == (1, 0)

    def test_flows(self) -> None:
        record = record_of(pot1, Guide("planar*2", 2, generator=seeded(0)))
        populate(record, seeded(1), torch.float32)
        assert (len(record.rungs), record.values) == (1, 0)

    def test_a_gaussian_that_is_right(self) -> None:
        record = record_of(LogDensity(lambda z: -0.5 * z.square().sum(-1), 2), wide(2, 1.0))
        populate(record, seeded(1), torch.float32)
        assert len(record.rungs) == 1
        assert record.batches == 2  # the second with as many draws as make it sure

    def test_a_target_that_is_finite_at_none_of_its_draws(self) -> None:
        record = record_of(pot1, wide(2))
        record.target = Nowhere()
        populate(record, seeded(1), torch.float32)
        assert (len(record.rungs), record.batches) == (1, 1)

    def test_a_budget_that_holds_too_few_values(self) -> None:
        record = record_of(pot1, wide(2), Budget(seconds=1.0))
        record.seconds_per_point = 1e-3
        populate(record, seeded(1), torch.float32)
        assert (len(record.rungs), record.values) == (1, 0)

    def test_a_spent_budget_ends_it_after_a_round(self) -> None:
        record = record_of(pot1, wide(2), Budget(seconds=100.0))
        record.started -= 100.0
        populate(record, seeded(1), torch.float32)
        assert len(record.rungs) == 1
        assert record.batches == 1


def test_an_error_of_the_target_comes_with_the_guide_so_far() -> None:
    def log_p(z: Tensor) -> Tensor:
        if len(z) > 8_000:
            raise RuntimeError("no more")
        return -z.square().sum(-1)

    target = LogDensity(log_p, 2)
    guide = wide(2)
    record = Record(target, 0, Budget(seconds=50.0), {})
    record.seconds_per_point = 1e-3  # 1 000 draws judge the rung
    keep_guide(record, guide)
    record.seconds_per_point = 0.0
    with pytest.raises(Exception, match="no more") as caught:
        populate(record, seeded(1), torch.float32)
    assert not isinstance(caught.value, TargetError)
    assert caught.value.guide is record.tried[0].guide  # type: ignore[attr-defined]


def test_the_oldest_draws_go_and_the_weights_are_those_of_the_rest() -> None:
    """With p = q all draws weigh the same but for the t half, and Σ ω log q is −entropy."""
    mixture = NormalMixture(
        torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
    )
    target = LogDensity(lambda z: -0.5 * z.square().sum(-1), 2)
    population = Population(
        target, torch.zeros(2).double(), torch.eye(2).double(), seeded(0), torch.float64
    )
    n = POOL // 2
    for _ in range(4):
        seen = population.draw(mixture, n)
    assert len(population.log_p) == len(population.points) == POOL
    assert population.log_q.shape == (POOL, 2)
    assert abs(seen.gap) < 5 / n**0.5
    assert float(seen.omega.sum()) == pytest.approx(1)
    second = float(seen.omega @ population.points[:, 3:].sum(1))
    assert second - float(seen.omega @ population.points[:, 4]) == pytest.approx(2, abs=0.03)
    assert float(seen.losses.sum()) / (n // 2) == pytest.approx(0, abs=5 / n**0.5)


def seen_by(log_p: Callable[[Tensor], Tensor]) -> tuple[Population, Seen]:
    """What 20 000 draws of N(0, I) in the plane say of it, for such a target."""
    mixture = NormalMixture(
        torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
    )
    loc, tril = torch.zeros(2).double(), torch.eye(2).double()
    population = Population(LogDensity(log_p, 2), loc, tril, seeded(3), torch.float64)
    return population, population.draw(mixture, 20_000)


def test_halves_that_are_dropped_again_are_no_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along narrow waves EM keeps one of two halves, time and again."""
    mixture = NormalMixture(
        torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
    )
    population, seen = seen_by(lambda z: -0.5 * z.square().sum(-1))
    calls = 0

    def one_is_left(*_: object) -> NormalMixture:
        nonlocal calls
        calls += 1
        assert calls < 100
        return mixture

    monkeypatch.setattr(module, "fitted", one_is_left)
    assert module._next(population, mixture, seen, MOST, same=False) is mixture


def test_more_draws_come_before_more_parts_and_then_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a gap of 0.006 with 32 Gaussians, which no number of draws can tell from their noise."""
    rounds: list[tuple[int, bool]] = []

    class Drawn:
        def draw(self, mixture: NormalMixture, n: int) -> Seen:
            rounds.append((n, True))
            ones = torch.ones(mixture.size)
            return Seen(0.006 if mixture.size == 32 else 0.001, ones, 0.5 * n, ones)

    def follow(_: object, mixture: NormalMixture, seen: Seen, most: int, same: bool) -> object:
        rounds[-1] = rounds[-1][0], same
        return mixture if same else evenly(64)

    monkeypatch.setattr(module, "_next", follow)
    record = record_of(LogDensity(ring, 2), wide(2))
    found = module._rounds(record, Drawn(), evenly(32), 8_192, 64)  # type: ignore[arg-type]
    assert found is not None and found.size == 64
    assert [n for n, _ in rounds[:4]] == [8_192, 16_384, 32_768, 65_536]
    assert [same for _, same in rounds] == [True, True, True, False, True]


def evenly(count: int) -> NormalMixture:
    """As many Gaussians along a line, each of the same weight."""
    loc = torch.stack([torch.arange(count).double(), torch.zeros(count).double()], 1)
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    return NormalMixture(weights, loc, torch.eye(2, dtype=torch.float64).repeat(count, 1, 1))


class TestWhatIsSeen:
    def test_the_gap_is_the_divergence(self) -> None:
        """KL(N(0, I) ‖ N(0, s² I)) = 2 log s + 1 / s² − 1, and no log Z is needed.

        Of 10 000 independent draws the error would be 0.003.
        """
        s = 1.2
        _, seen = seen_by(lambda z: -0.5 * (z / s).square().sum(-1) + 7)
        assert seen.gap == pytest.approx(2 * math.log(s) + s**-2 - 1, abs=3e-3)

    def test_near_the_target_draws_that_are_taken_too_seldom_count_more(self) -> None:
        s = 1.1  # the gap is 0.017
        population, seen = seen_by(lambda z: -0.5 * (z / s).square().sum(-1))
        x = population.points[:, 1:3]
        q, p = (-0.5 * x.square().sum(1)).exp(), (-0.5 * (x / s).square().sum(1)).exp() / s**2
        drawn = 2 * math.pi * (population.log_q[:, 0]).exp()
        wanted = p / drawn * (0.5 + 0.5 * (p / q).clamp_max(10))
        torch.testing.assert_close(seen.omega, wanted / wanted.sum(), rtol=0.02, atol=0)

    def test_further_off_they_count_by_their_weights_alone(self) -> None:
        s = 1.5
        population, seen = seen_by(lambda z: -0.5 * (z / s).square().sum(-1))
        x = population.points[:, 1:3]
        wanted = (-0.5 * (x / s).square().sum(1) - population.log_q[:, 0]).softmax(0)
        torch.testing.assert_close(seen.omega, wanted)

    def test_light_tails_are_never_enough(self) -> None:
        """In one draw of two hundred or so p is far above q, which the ELBO hardly feels."""

        def heavy(z: Tensor) -> Tensor:
            far = -0.5 * (z / 4).square().sum(-1) - 2 * math.log(4) - 7
            return torch.logaddexp(-0.5 * z.square().sum(-1), far)

        _, seen = seen_by(heavy)
        assert seen.gap > ENOUGH

    def test_a_value_of_plus_infinity_is_no_gain(self) -> None:
        def log_p(z: Tensor) -> Tensor:
            values = -0.5 * z.square().sum(-1)
            return torch.where(z[..., 0] > 2.5, torch.inf, values)

        _, seen = seen_by(log_p)
        assert seen.gap > 1
        assert bool(seen.omega.isfinite().all())


@pytest.fixture(scope="module")
def fit() -> Fit:
    return NFVI("auto", seed=1).fit(pot1)


class TestAuto:
    def test_it_ends_with_a_mixture(self, fit: Fit) -> None:
        assert fit.path is not None
        assert isinstance(fit.guide, MixtureGuide)
        assert fit.verdict.word == "good"
        assert fit.diagnostics.khat < 0.7
        assert fit.path.value_evaluations > 0
        assert fit.log_evidence == pytest.approx(pot1.log_normalizer, abs=0.01)

    def test_the_same_seed_gives_the_same_guide(self, fit: Fit) -> None:
        again = NFVI("auto", seed=1).fit(pot1)
        x = torch.randn(50, 2, generator=seeded(0))
        assert torch.equal(again.guide.log_prob(x), fit.guide.log_prob(x))

    def test_its_text_lists_no_sixteen_weights(self, fit: Fit) -> None:
        text = str(fit)
        assert f"mixture of {len(fit.guide.guides)} components with weights from" in text
        assert "ELBO of each restart" not in text

    def test_it_passes_its_own_verification(self, fit: Fit) -> None:
        assert fit.verify().passed

    def test_it_cannot_be_refined_component_by_component(self, fit: Fit) -> None:
        before = fit.elbo
        with pytest.raises(FitError, match="some follow one shape together"):
            fit.refine(10)
        assert fit.elbo == before

    def test_nor_does_its_text_say_so(self, fit: Fit) -> None:
        """Where it was interrupted, and where weighted draws are asked for."""
        found = fit._report()
        assert found.findings is not None
        cut = str(describe(replace(found, stopped="interrupted")))
        assert "interrupted)" in cut.replace("\n", " ")
        assert found.path is not None
        flat = replace(found.findings.diagnostics, elbo=fit.log_evidence - 0.1, ess=8_000.0)
        usable = describe(replace(found, findings=replace(found.findings, diagnostics=flat)))
        text = " ".join(usable.split())
        assert "Verdict: usable" in text
        assert "NFVI('monotone*3').fit(target, init='auto') fits a flow" in text
        assert "fit.refine" not in text

    def test_files_keep_what_it_cost(self, fit: Fit, tmp_path: object) -> None:
        path = f"{tmp_path}/fit.nfvi"
        fit.save(path)
        read = Fit.load(path, target=pot1)
        assert read.path is not None
        assert fit.path is not None
        assert read.path.value_evaluations == fit.path.value_evaluations
