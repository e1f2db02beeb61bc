"""Restarts that are given up on the way."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Checkpoint, Fit, GradientTracker, Tracker
from nfvi.tracing import Traced, same, traced
from nfvi.training import step
from nfvi.training.controls.pruning import LOOKS, far_behind

STEPS, N_MC, R = 200, 16, 4
FIRST_LOOK = round(LOOKS[0] * STEPS)


def target(z: Tensor) -> Tensor:
    """Two modes, one 6 nats below the other."""
    return torch.logaddexp(-0.5 * ((z - 5) ** 2).sum(-1) - 6, -0.5 * ((z + 5) ** 2).sum(-1))


def fit(callbacks: tuple = (), **options: Any) -> Fit:
    """Some of the starts fall to the lower mode, 6 nats down, and stay there."""
    arguments = {"steps": STEPS, "n_mc": N_MC, "restarts": R, "anneal": False, "lr": 0.1}
    return NFVI("scale-loc", seed=3, jitter=1.0).fit(
        target,
        dim=2,
        callbacks=callbacks,
        **{"prune": True, "progress": False, **arguments, **options},
    )


@pytest.fixture(scope="module")
def pruned() -> Fit:
    return fit()


@pytest.fixture(scope="module")
def whole() -> Fit:
    """The fit of which every restart continues to the end."""
    return fit(prune=False)


class TestRule:
    def rows(self, means: list[float], scale: float = 1.0) -> Tensor:
        noise = torch.randn(len(means), 900, generator=torch.Generator().manual_seed(0)).double()
        noise = scale * (noise - noise.mean(1, keepdim=True))
        return torch.tensor(means).double().unsqueeze(1) + noise

    def pruned(self, means: list[float], able: list[bool] | None = None, **kw: float) -> list[bool]:
        mask = torch.tensor([True] * len(means) if able is None else able)
        return far_behind(self.rows(means, **kw), mask).tolist()

    def test_the_lower_half_goes(self) -> None:
        assert self.pruned([0.0, -1.0, -2.0, -3.0]) == [False, False, True, True]
        assert self.pruned([-3.0, 0.0, -1.0]) == [True, False, False]

    def test_not_within_the_noise(self) -> None:
        # The paired difference has standard error √2 · 10 / 30 = 0.47, and 1 is below three.
        assert not any(self.pruned([0.0, 0.0, -1.0, -1.0], scale=10.0))
        assert not any(self.pruned([0.0, 0.0, -0.05, -0.09], scale=0.01))

    def test_those_that_may_not_be_compared_stay(self) -> None:
        able = [True, True, False, False]
        assert self.pruned([0.0, -9.0, -9.0, 9.0], able) == [False, True, False, False]

    def test_what_is_not_finite_goes_first(self) -> None:
        assert self.pruned([0.0, math.nan, -math.inf, 0.0]) == [False, True, True, False]
        assert not any(self.pruned([math.nan, math.nan]))


class TestFit:
    def test_those_pruned_cost_nothing_more(self, pruned: Fit, whole: Fit) -> None:
        gone = [r for r in pruned.restarts if r.pruned is not None]
        assert gone and all(r.pruned in {round(f * STEPS) for f in LOOKS} for r in gone)
        saved = sum(STEPS - (r.pruned or 0) for r in gone)
        assert pruned.gradient_evaluations == whole.gradient_evaluations - saved * N_MC
        assert pruned._trainer is not None and pruned._trainer.ensemble.size == R - len(gone)
        best = max(r.elbo for r in whole.restarts)
        assert pruned.elbo > best - 0.1 and max(r.elbo for r in gone) < best - 1

    def test_the_history_keeps_their_columns(self, pruned: Fit, whole: Fit) -> None:
        gone = [r.index for r in pruned.restarts if r.pruned == FIRST_LOOK]
        kept = [r.index for r in pruned.restarts if r.pruned is None]
        assert gone and kept
        elbo = pruned.history.elbo
        assert elbo.shape == (STEPS, R)
        assert elbo[FIRST_LOOK:, gone].isnan().all() and elbo[:, kept].isfinite().all()
        assert torch.equal(elbo[:FIRST_LOOK], whole.history.elbo[:FIRST_LOOK])

    def test_what_is_said(self, pruned: Fit) -> None:
        assert f"pruned at step {FIRST_LOOK}" in str(pruned)
        assert [r.index for r in pruned.restarts] == list(range(R))
        assert sum(r.best for r in pruned.restarts) == 1 and not any(
            r.dropped for r in pruned.restarts
        )

    def test_its_steps_are_traced(self, pruned: Fit) -> None:
        """Anew where restarts have gone: the numbers are those of autograd to the last bit."""
        eager = fit(compile=False)
        assert pruned.settings["evaluation"] == "traced"
        assert eager.settings["evaluation"] == "eager: compile=False"
        for name, value in eager.history.state_dict().items():
            assert same([pruned.history.state_dict()[name]], [value]), name
        assert [r.pruned for r in pruned.restarts] == [r.pruned for r in eager.restarts]
        assert torch.equal(pruned.sample(9, seed=0), eager.sample(9, seed=0))

    def test_a_graph_for_each_number_of_restarts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []

        def counted(evaluate: Any, points: Any) -> Traced:
            sizes.append(len(points[0][0]))
            return traced(evaluate, points)

        monkeypatch.setattr(step, "traced", counted)
        found = fit()
        ends = sorted({r.pruned for r in found.restarts if r.pruned is not None})
        left = [sum(r.pruned is None or r.pruned > end for r in found.restarts) for end in ends]
        assert sizes == [R, *left]

    def test_callbacks_see_every_restart(self) -> None:
        tracker = Tracker(every=10, loc=lambda s: s.parameters["loc_1"], alive=lambda s: s.alive)
        gradients = GradientTracker(every=10, groups=2)
        found = fit((tracker, gradients))
        gone = [r.index for r in found.restarts if r.pruned is not None]
        assert tracker["loc"].shape == (STEPS // 10, R, 2)
        assert tracker["loc"][-1, gone].isnan().all() and not tracker["alive"][-1, gone].any()
        assert gradients.norms.shape[:2] == (STEPS // 10, R)
        with pytest.raises(ValueError, match="was pruned"):
            found._trainer.guide(gone[0])  # type: ignore[union-attr]

    def test_tempered_ones_wait(self) -> None:
        found = fit(anneal=0.75)
        assert all(r.pruned in (None, round(LOOKS[3] * STEPS)) for r in found.restarts)

    @pytest.mark.parametrize("options", [{}, {"draws": "qmc", "n_mc": "auto"}, {"steps": 400}])
    def test_resumed_bit_for_bit(self, options: dict[str, Any], tmp_path: Any) -> None:
        def cut(state: Any) -> None:
            if state.step == 155:
                raise OSError("power cut")

        file = tmp_path / "fit.ckpt"
        with pytest.raises(OSError, match="power cut"):
            fit((Checkpoint(file, every=150), cut), **options)
        resumed, whole = NFVI.resume(file).fit(target, dim=2, progress=False), fit(**options)
        assert whole.restarts == resumed.restarts
        assert any(r.pruned is not None for r in whole.restarts)
        # NaN is not equal to itself, and bits are.
        ours, theirs = whole.history.elbo, resumed.history.elbo
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
        assert resumed.gradient_evaluations == whole.gradient_evaluations

    def test_refine_and_files_go_on(self, tmp_path: Any) -> None:
        found = fit()
        found.refine(10)
        assert found.history.elbo.shape == (STEPS + 10, R)
        found.save(tmp_path / "fit")
        loaded = Fit.load(tmp_path / "fit", target)
        assert [r.pruned for r in loaded.restarts] == [r.pruned for r in found.restarts]
        loaded.refine(5)

    def test_the_same_seed_is_the_same_fit(self, pruned: Fit) -> None:
        assert torch.equal(fit().history.elbo.nan_to_num(), pruned.history.elbo.nan_to_num())

    def test_nothing_is_pruned_unless_asked_for(self) -> None:
        assert all(r.pruned is None for r in fit(prune=None).restarts)
        with pytest.raises(ValueError, match="prune must be True or False"):
            fit(prune="half")
