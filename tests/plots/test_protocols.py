"""What pictures ask of what they draw, and that it need be of no class of nfvi."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.colors import to_hex

import nfvi.plots
from nfvi import NFVI, GradientTracker, LogDensity, MixtureGuide, calibrate, compare, nuts, plots
from nfvi.plots.climbs import PathLike, RungLike
from nfvi.plots.compared import FittedLike
from nfvi.plots.densities import HasGuide
from nfvi.plots.gradient_traces import TrackerLike
from nfvi.plots.likelihood_curves import DataFitLike, LikelihoodLike, LooksLike, QualityLike
from nfvi.plots.loss_curves import FitLike, HistoryLike, RestartLike
from nfvi.plots.marginals import RunLike
from nfvi.plots.protocols import (
    ComparisonLike,
    DensityLike,
    GuideLike,
    MixtureLike,
    RowLike,
    SideLike,
    SitesLike,
    TargetLike,
)
from nfvi.plots.rank_plots import CalibrationLike, RankCheckLike
from nfvi.plots.start import FlowLike, StartLike
from nfvi.plots.style import COLORS
from nfvi.plots.verified import CheckLike, VerificationLike
from nfvi.plots.weight_tails import WeightsLike
from nfvi.utils import KHAT_LIMIT

WINDOW = ((-5.0, 5.0), (-5.0, 5.0))


def log_p(z):
    return -0.5 * z.square().sum(-1)


def effect(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.fixture(scope="module")
def things():
    """One of each thing that has a picture, by its name."""
    target, tracker = LogDensity(log_p, 2, name="normal"), GradientTracker()
    start = NFVI("scale-loc", seed=1)
    fit = start.fit(target, steps=20, restarts=2, n_mc=8, callbacks=[tracker])
    run = nuts(target, draws=20, warmup=20, chains=2, seed=1, progress=False)
    x = np.random.default_rng(0).normal(size=(60, 2))
    how = {"steps": 5, "restarts": 1, "n_jobs": 1, "seed": 1}
    return SimpleNamespace(
        target=target,
        start=start,
        tracker=tracker,
        fit=fit,
        guide=fit.guide,
        mixture=MixtureGuide([fit.guide, fit.guide], [0.5, 0.5]),
        run=run,
        draws=fit.weighted_draws(30, seed=1),
        path=NFVI(seed=1).fit(target, budget=60, progress=False).path,
        verification=fit.verify(chains=100),
        comparison=compare(fit, run, draws=50, seed=1),
        data_fit=start.fit_data(x, epochs=3),
        calibration=calibrate(
            effect, "loc", torch.zeros(()), simulations=12, draws=9, weighted=False, **how
        ),
    )


def members(protocol):
    return {name for name in dir(protocol) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("protocol", "path"),
    [
        (TargetLike, "target"),
        (StartLike, "start"),
        (TrackerLike, "tracker"),
        (HasGuide, "fit"),
        (FittedLike, "fit"),
        (FitLike, "fit"),
        (HistoryLike, "fit.history"),
        (RestartLike, "fit.restarts.0"),
        (GuideLike, "guide"),
        (FlowLike, "guide"),
        (GuideLike, "mixture"),
        (MixtureLike, "mixture"),
        (RunLike, "run"),
        (ComparisonLike, "comparison"),
        (SideLike, "comparison.left"),
        (SitesLike, "comparison.right"),
        (RowLike, "comparison.table.0"),
        (DensityLike, "data_fit"),
        (DataFitLike, "data_fit"),
        (LooksLike, "data_fit.validation"),
        (QualityLike, "data_fit.quality"),
        (LikelihoodLike, "data_fit.quality.held_out"),
        (CalibrationLike, "calibration"),
        (RankCheckLike, "calibration.checks.0"),
        (WeightsLike, "draws"),
        (PathLike, "path"),
        (RungLike, "path.0"),
        (VerificationLike, "verification"),
        (CheckLike, "verification.checks.0"),
    ],
)
def test_what_nfvi_makes_has_what_its_pictures_ask_for(things, protocol, path):
    thing = things
    for step in path.split("."):
        thing = thing[int(step)] if isinstance(thing, Sequence) else getattr(thing, step)
    assert members(protocol)
    assert not [name for name in members(protocol) if not hasattr(thing, name)]


@pytest.mark.parametrize(
    ("protocol", "alike"),
    [
        (GuideLike, {"guide", "mixture"}),
        (MixtureLike, {"mixture"}),
        (StartLike, {"start"}),
        (DensityLike, {"data_fit"}),
        (DataFitLike, {"data_fit"}),
        (RunLike, {"run"}),
        (ComparisonLike, {"comparison"}),
    ],
)
def test_unlike_things_are_told_apart(things, protocol, alike):
    assert {name for name, thing in vars(things).items() if isinstance(thing, protocol)} == alike


def test_asking_what_a_fit_is_computes_nothing(tmp_path):
    fit = NFVI("loc", seed=1).fit(log_p, dim=2, steps=2, restarts=1, n_mc=4)
    for protocol in (GuideLike, DensityLike, DataFitLike, RunLike, ComparisonLike, StartLike):
        assert not isinstance(fit, protocol)
    assert fit._diagnostics is None


class Ring:
    """A target and a guide that know nothing of nfvi."""

    dim, name, named, formula = 2, "ring", False, "a ring"
    log_normalizer, has_sampler = 0.0, True
    dtype, device = torch.float32, torch.device("cpu")

    def log_prob(self, z):
        return log_p(z) - math.log(2 * math.pi)

    def constrain(self, z):
        return {"z": z}

    def sample(self, n, *, generator, device="cpu"):
        return torch.randn(n, 2, generator=generator, device=device)

    def base_sample(self, n, *, generator):
        return torch.randn(n, 2, generator=generator)

    def transform(self, z):
        return z + 1, torch.zeros(len(z))


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def labels(ax):
    return dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))


def test_densities_of_others():
    ring = Ring()
    assert plots.target(ring).get_title() == "ring"
    assert plots.guide(ring, window=WINDOW).get_title() == "a ring"
    assert plots.guide(SimpleNamespace(guide=ring), draws=5).get_title() == "a ring"
    both = plots.fitted(SimpleNamespace(guide=ring, target=ring, dim=2))
    assert titles(both) == ["ring, the target", "a ring"]


def test_start_of_others():
    made = []

    def starting_guide(target, *, dim, seed):
        made.append((target, dim, seed))
        return Ring()

    dots = labels(plots.starting(SimpleNamespace(starting_guide=starting_guide), dim=2, seed=3))
    assert made == [(None, 2, 3)]
    base, moved = (np.asarray(dots[name].get_offsets()) for name in ("base", "guide"))
    np.testing.assert_allclose(moved, base + 1, rtol=1e-6)
    assert plots.starting(Ring()).get_title() == "a ring before the first step"


@pytest.mark.parametrize("khat", [KHAT_LIMIT - 0.1, KHAT_LIMIT])
def test_history_of_others(khat):
    values = torch.arange(40.0).reshape(20, 2)
    history = SimpleNamespace(elbo=values, loss=-values, grad_norm=values + 1, beta=values * 0 + 1)
    target = SimpleNamespace(log_normalizer=None)
    restarts = [SimpleNamespace(index=i, best=i == 1, tempered=False) for i in range(2)]
    fit = SimpleNamespace(
        **{"history": history, "target": target, "restarts": restarts, "kept": [1]},
        **{"steps": 20, "formula": "f", "settings": {"target": "t"}},
        **{"khat": khat, "log_evidence": 39.5},
    )
    ax = plots.history(fit, smooth=1)
    shown = labels(ax)
    assert ax.get_title() == "f on t"
    np.testing.assert_array_equal(shown["restart 1, kept"].get_ydata(), values[:, 1])
    assert ("log Z by importance sampling" in shown) == (khat < KHAT_LIMIT)


def test_pairs_of_others():
    generator = torch.Generator().manual_seed(0)
    own = SimpleNamespace(
        target=Ring(), sample=lambda n, *, seed: torch.randn(n, 2, generator=generator)
    )
    assert plots.pairs(own, draws=50).get_suptitle() == "ring: SimpleNamespace"
    chains = torch.randn(2, 30, 2, generator=generator)
    run = SimpleNamespace(target=Ring(), kernel="Gibbs", sites=lambda: {"z": chains})
    figure = plots.pairs(run)
    assert figure.get_suptitle() == "ring: Gibbs"
    offsets = np.asarray(figure.axes[2].collections[0].get_offsets())
    assert sorted(offsets.tolist()) == sorted(chains.flatten(0, 1).double().tolist())


def test_ranks_of_others():
    ranks = {name: np.arange(40) % 10 for name in ("a", "b")}
    checks = [
        SimpleNamespace(name=name, p_value=p, passed=p > 0.5, words="")
        for name, p in (("a", 0.9), ("b", 0.1))
    ]
    found = SimpleNamespace(
        **{"name": "m", "formula": "f", "draws": 9, "indices": range(40)},
        **{"columns": ranks, "checks": checks},
        ecdf_band=lambda: (np.full(9, 1), np.full(9, 39)),
        bin_band=lambda shares: (shares * 0, shares * 40),
    )
    for kind in ("ecdf", "histogram"):
        figure = plots.ranks(found, kind=kind)
        assert figure.get_suptitle() == "f on m: 40 simulations"
        assert titles(figure) == ["a", "b"]
        colors = [to_hex(ax.title.get_color()).upper() for ax in figure.axes]
        assert colors == [COLORS["left"], COLORS["right"]]


@pytest.mark.parametrize("wrong", ["planar*8", 3])
def test_what_no_fit_starts_from(wrong):
    with pytest.raises(TypeError, match=f"takes an NFVI or a guide, got {type(wrong).__name__}"):
        plots.starting(wrong, dim=2)


def test_pictures_stand_low():
    """They import nothing of nfvi but themselves, its errors and its tools, wherever in a file."""
    folder = Path(nfvi.plots.__file__).parent
    low = ("nfvi.plots", "nfvi.errors", "nfvi.utils")
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if alias.name]
            found = [getattr(node, "module", None)] if isinstance(node, ast.ImportFrom) else names
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not [n for n in found if n.startswith("nfvi") and not n.startswith(low)], (
                    path
                )
