"""nuts(sampler="nutpie"): the same kind of run, from another sampler, or one clear error."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import Tensor

from nfvi import LogDensity, nuts
from nfvi.mcmc import potential as potential_module
from tests.traced_targets import schools

SHORT = {"draws": 50, "warmup": 50, "chains": 2, "seed": 3, "progress": False, "dim": 2}


def normal(z: Tensor) -> Tensor:
    """Sd 1 and 3."""
    return -0.5 * z[:, 0] ** 2 - z[:, 1] ** 2 / 18


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"sampler": "stan"}, "sampler must be 'pyro' or 'nutpie', got 'stan'"),
            ({"step_size": 0.1}, "step_size=0.1: nutpie always adapts"),
            ({"mass": "dense"}, "mass='dense': sampler='nutpie' takes 'diagonal'"),
            ({"warmup": 9}, "warmup must be at least 10 for sampler='nutpie', got 9"),
        ],
    )
    def test_arguments(self, options, said) -> None:
        with pytest.raises(ValueError, match=said):
            nuts(normal, **SHORT | {"sampler": "nutpie"} | options)

    def test_a_missing_extra(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "nutpie", None)
        with pytest.raises(ImportError, match=r'pip install "nfvi\[nutpie\]"'):
            nuts(normal, sampler="nutpie", **SHORT)


class TestRun:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ArviZ warns of its future
            pytest.importorskip("nutpie")

    def test_moments(self) -> None:
        """Of 4 000 draws, each mean within five of its standard errors."""
        run = nuts(normal, sampler="nutpie", **SHORT | {"draws": 1_000, "warmup": 200, "chains": 4})
        assert run.kernel == "NUTS" and run.draws.shape == (4, 1_000, 2)
        assert float(run.rhat["z"].max()) < 1.02
        se = torch.tensor([1.0, 3.0]) / run.ess_bulk["z"].sqrt()
        assert bool((run.draws.mean((0, 1)).abs() < 5 * se).all())
        assert torch.allclose(run.draws.flatten(0, 1).std(0), torch.tensor([1.0, 3.0]), rtol=0.1)
        assert bool((run.draw_gradients > 0).all()) and not run.diverging.any()
        assert run.gradient_evaluations >= int(run.draw_gradients.sum())
        assert bool(((run.accept > 0.5) & (run.accept <= 1)).all())

    def test_the_seed(self) -> None:
        """Whatever runs beside a chain, and with a graph or without one."""
        first, again, beside = (
            nuts(normal, sampler="nutpie", n_jobs=jobs, **SHORT) for jobs in (1, 1, 2)
        )
        assert torch.equal(first.draws, again.draws) and torch.equal(first.draws, beside.draws)
        other = nuts(normal, sampler="nutpie", **SHORT | {"seed": 4})
        assert not torch.equal(first.draws, other.draws)
        assert not torch.equal(first.draws[0], first.draws[1])

    def test_options_reach_the_sampler(self) -> None:
        """A higher acceptance takes smaller steps, and a tree no more than its depth allows."""
        options = {"sampler": "nutpie"} | SHORT | {"warmup": 200}
        loose, strict = (nuts(normal, target_accept=a, **options) for a in (0.6, 0.99))
        assert bool((strict.step_size < 0.7 * loose.step_size).all())
        shallow = nuts(normal, target_accept=0.99, max_tree_depth=2, **options)
        assert int(shallow.draw_gradients.max()) <= 3 < int(strict.draw_gradients.max())

    def test_by_a_graph(self, monkeypatch) -> None:
        plain = nuts(normal, sampler="nutpie", **SHORT)
        monkeypatch.setattr(potential_module, "LEAST_DRAWS", 1)
        traced = nuts(normal, sampler="nutpie", **SHORT)
        assert torch.equal(plain.draws, traced.draws)
        assert plain.gradient_evaluations == traced.gradient_evaluations

    def test_where_chains_start(self) -> None:
        """Two modes so far apart that no chain goes from one to the other."""
        init = torch.tensor([[101.0], [-101.0]])
        modes = LogDensity(lambda z: -0.5 * (z[:, 0].abs() - 100.0) ** 2, 1)
        options = {k: v for k, v in SHORT.items() if k != "dim"}
        run = nuts(modes, sampler="nutpie", init=init, **options)
        assert torch.equal(run.starts, init)
        assert bool((run.draws[:, :, 0].sign() == init.sign()).all())

    def test_no_chain_begins_where_the_gradient_is_0(self) -> None:
        with pytest.raises(ValueError, match=r"cannot begin at \[0.0, 0.0\]: .*move init="):
            nuts(normal, sampler="nutpie", init=torch.zeros(2), **SHORT)

    def test_a_model(self) -> None:
        options = {k: v for k, v in SHORT.items() if k != "dim"}
        run = nuts(schools, torch.tensor([28.0, 8.0, -3.0]), sampler="nutpie", **options)
        assert run.sites()["effect"].shape == (2, 50, 3)
        assert bool((run.sites()["scale"] > 0).all())
        assert {"scale", "effect"} <= set(run.ess_tail)

    def test_where_there_is_no_density_chains_diverge(self) -> None:
        edge = LogDensity(lambda z: torch.where(z[:, 0] > 0, -z.sum(-1), -torch.inf), 1)
        options = {k: v for k, v in SHORT.items() if k != "dim"}
        run = nuts(edge, sampler="nutpie", init=torch.tensor([1.0]), **options)
        assert bool((run.draws > 0).all()) and int(run.divergences.sum()) > 0

    def test_what_the_target_raises(self) -> None:
        calls: list[int] = []

        def late(z: Tensor) -> Tensor:
            calls.append(1)
            if len(calls) > 100:
                raise OSError("the disk is gone")
            return normal(z)

        with pytest.raises(OSError, match="the disk is gone"):
            nuts(late, sampler="nutpie", **SHORT)
