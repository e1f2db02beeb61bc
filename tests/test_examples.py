"""The examples run from end to end, leave the figures that they name and print their numbers."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.potentials import pot4

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = {
    "formulas": {
        "figures": ["starting", "reflections"],
        "lines": [
            r"scale-hh\*100-loc  102 flows  10,200 parameters",
            r"scale-loc +KL +\S+ nats after \d+ steps",
            r"no guide scale-loc can be closer than 7\.690 nats",
            r"scale-hh\*20-loc +KL \S+ ± \S+ nats, k-hat \S+",
        ],
    },
    "pot1": {
        "figures": [
            *["target", "planar2-start", "planar2-history", "planar2-gradients", "planar8-start"],
            *["planar8-history", "planar8-nuts", "together"],
        ],
        "lines": [
            r"NUTS: draws left of 0 \S+%, by chain \S+% and \S+% \(exact 50 %\); R-hat \S+;",
            r"KL\(q \|\| p\) of planar\*2: \S+ nats; PyMC3's notebook: 0\.99",
            r"signal-to-noise of the gradient at the end, flow 1 \(planar\): \S+",
            r"KL\(q \|\| p\) of planar\*8: \S+ nats; PyMC3's notebook: 0\.10",
            r"mass left of 0: 0\.\d+, after importance resampling 0\.\d+",
        ],
    },
    "pot4": {
        "figures": ["target", "start", "history", "comparison", "square"],
        "lines": [
            r"61% of the mass",
            r"KL\(q \|\| p\) of planar\*10: \S+ nats; PyMC3's notebook: 1\.12",
            r"exact +14\.14 +0\.607 +0\.467",
            r"NUTS \S+, planar\*10 \S+",
            r"log Z by importance sampling from planar\*10: \S+ ± \S+; exact 3\.627",
        ],
    },
    "gaussian_1d": {
        "figures": ["before-after"],
        "lines": [
            r"log sd \+ log\(2 pi e\) / 2 with the sd of the sample: 0\.7\d+",
            r"maf( +[-+]?\d\.\d{5}){4}",
            r"spline\(bins=8\) of columns as they are: \S+ nats a draw in-sample",
        ],
    },
    "anomaly": {
        "figures": ["one-column", "history", "two-columns"],
        "lines": [
            r"the exact density +-1\.4\d+ +\d+% +0\.9\d+",
            r"fit\.anomaly_threshold\(0\.01\) of spline\(bins=8\): \S+; \d+ of 10,000 rows",
            r"maf\*3( +\S+){4}\n",
            r"exact likelihood ratio( +\d+%){6} +0\.99\d+ ± \S+",
            r"IsolationForest( +\d+%){6} +\S+ ± \S+",
            r"LocalOutlierFactor\(20\)( +\d+%){6} +\S+ ± \S+",
        ],
    },
    "potentials": {
        "figures": ["square", "whole", "grids"],
        "lines": [
            r"pot1 +\S+ ± \S+ +\S+ +\d+ +left of 0: \S+, exactly 0\.5",
            r"pot4 +\S+ ± \S+ +\S+ +\d+ +\|z\[0\]\| > 5: \S+, exactly 0\.607",
        ],
    },
    "circles": {
        "figures": ["densities", "marginals"],
        "lines": [
            r"marginal +spline\(bins=8\) +\S+ +\S+\n",
            r"joint, all points +\(nsf\(bins=8\)-perm\)\*4 +\S+ +\S+\n",
            r"the truth, by quadrature +-1\.761",
            r"joint above marginal: \S+ nats a point",
        ],
    },
    "iris": {
        "figures": ["marginals", "draws"],
        "lines": [
            r"realnvp\(hidden=\[100\]\)\*5, a flow a species: accuracy \d\.\d{4}",
            r"they agree on \S+% of the flowers",
            r"a flow a species +0\.9\d+( +\S+){4}\n",
            r"QDA +0\.9\d+ +0\.9\d+ +0\.9\d+ +\+0\.0000",
            r"held out; (\S+ ){3}overfitted",
            r"negative lengths +150 of 150 are strange",
        ],
    },
    "model_evidence": {
        "figures": ["estimates"],
        "lines": [
            r"all ten +-?\S+ ± \S+",
            r"bmi, s5, bp, sex, s3 +-49\d\.\d+ +[-+]\S+ ± \S+ +\+0\.0000 ± 0\.0000, exact",
            r"all ten +-\S+ +[-+]\S+ ± \S+ +\S+ ± \S+, exact -\d+\.\d+",
            r"bmi +prior 0\.6\d+, posterior 0\.\d+",
        ],
    },
    "eight_schools": {
        "figures": ["nuts", "tau"],
        "lines": [
            r"scale-hh\*10-loc on eight_schools +KL \S+ nats, k-hat \S+",
            r"fit\.sample\(1000\)\['theta'\]: \(1000, 8\)",
            r"NUTS, non-centred +mean \S+, P\(tau < 1\) \S+",
        ],
    },
    "pymc_nfvi": {
        "needs": "pymc",
        "figures": ["planar2-gradients", "planar8-history", "pot1"],
        "lines": [
            r"KL\(q \|\| p\) of planar\*8: \S+ nats; PyMC3's notebook: 0\.10",
            r"mass left of 0: NUTS 0\.\d+, planar\*8 0\.\d+; exact 0\.500",
            r"effect of Choate: \S+ ± \S+",
            r"posterior predictive draws of the effects: .*'draw': 1000, 'school': 8",
        ],
    },
}


@pytest.fixture
def examples(monkeypatch):
    """Modules of the folder by name, imported as Python does for a script."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def coarse(monkeypatch):
    """Diagnostics of few draws, and densities on wide meshes."""
    monkeypatch.setattr("nfvi.fit.approximation.DIAGNOSTIC_DRAWS", 400)
    monkeypatch.setattr("nfvi.fit.restarts.DRAWS", 400)
    monkeypatch.setattr("nfvi.plots.grids.POINTS", 60)
    monkeypatch.setattr("nfvi.plots.grids.LONG_POINTS", (120, 40))


def cost(name: str) -> object:
    """PyMC and JAX compile for half a minute."""
    marks = [pytest.mark.slow] if "needs" in EXAMPLES[name] else []
    return pytest.param(name, marks=marks)


def test_every_example_is_here():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*EXAMPLES, "common"}


@pytest.mark.filterwarnings("ignore:\nArviZ is undergoing:FutureWarning")
@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation")
@pytest.mark.parametrize("name", [*map(cost, EXAMPLES)])
def test_runs_and_leaves_its_figures(name, examples, coarse, tmp_path, capsys):
    pytest.importorskip(EXAMPLES[name].get("needs", "nfvi"))
    examples(name).main(["--quick", "--out", str(tmp_path / "figures")])
    printed = capsys.readouterr().out
    named = re.findall(r"^figure: (.+)$", printed, re.MULTILINE)
    wanted = [tmp_path / "figures" / f"{figure}.png" for figure in EXAMPLES[name]["figures"]]
    assert sorted(named) == sorted(map(str, wanted)) == sorted(map(str, wanted[0].parent.iterdir()))
    # A PNG of nothing at all is smaller than this.
    assert all(
        path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000 for path in wanted
    )
    missing = [line for line in EXAMPLES[name]["lines"] if not re.search(line, printed)]
    assert not missing, printed


def test_best_mean_field_guide_of_a_known_gaussian(examples):
    """Correlation ρ in two dimensions: Λ_ii = 1 / (1 − ρ²), so KL = −½ log(1 − ρ²)."""
    formulas = examples("formulas")
    target = formulas.Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    assert formulas.mean_field_kl(target) == pytest.approx(-0.5 * math.log(1 - 0.8**2), abs=1e-6)


def test_features_of_exact_draws_of_pot4(examples):
    """Within five standard errors of the closed forms that the example prints."""
    n = 200_000
    draws = pot4.sample(n, generator=torch.Generator().manual_seed(0))
    sd, far, lower = examples("pot4").features(draws)
    # Laplace(0, 10): the variance of z² is 20 · 10⁴, so that of the sd is that over 4 n sd².
    assert sd == pytest.approx(10 * math.sqrt(2), abs=5 * math.sqrt(20e4 / (4 * n * 200)))
    assert far == pytest.approx(math.exp(-0.5), abs=5 * math.sqrt(0.25 / n))
    # At z0 = 2 the lower branch is 2.9 below the upper one, whose sds are 0.35 and 0.4.
    assert lower == pytest.approx(7 / 15, abs=5 * math.sqrt(0.25 / (0.4 * n)) + 1e-3)


def test_density_of_the_circles(examples):
    """It is normalised, and the truth scores its own points as quadrature says, within 5 s.e."""
    circles = examples("circles")
    places = torch.linspace(-3.5, 3.5, 701, dtype=torch.float64)
    mass = circles.log_rings(torch.cartesian_prod(places, places)).exp().sum() * 0.01**2
    assert mass.item() == pytest.approx(1, abs=1e-9)
    log_p = circles.log_rings(circles.circles(100_000, 0)).double()
    error = 5 * (log_p.std() / math.sqrt(len(log_p))).item()
    joint, apart = circles.ceilings()
    assert log_p.mean().item() == pytest.approx(joint, abs=error)
    assert apart < joint


def test_scores_of_iris(examples):
    """Bayes' rule and the table, for two repeats of known scores."""
    iris = examples("iris")
    y = np.array([0, 1, 2, 0])
    right = np.log(np.eye(3)[y] * 0.8 + 0.1)
    wrong = right.copy()
    wrong[0] = np.log([0.1, 0.8, 0.1])
    assert iris.probabilities(right).sum(-1) == pytest.approx(np.ones(4))
    assert iris.accuracy(right, y) == 1 and iris.accuracy(wrong, y) == 0.75
    table = iris.describe_scores({"a": np.stack([right, wrong]), "QDA": right[None]}, y)
    # The mean of log 0.9 seven times and log 0.1 once.
    nats = (7 * math.log(0.9) + math.log(0.1)) / 8
    assert re.search(rf"a +0\.8750 +0\.7500 +1\.0000 +-0\.1250 +{nats:.2f}\n", table)
