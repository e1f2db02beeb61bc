"""HMC and NUTS: right draws, right diagnostics, no trace left behind.

Statistical checks have fixed seeds; a bound of k Monte-Carlo standard errors on one number fails by
chance at a fresh seed with probability 6e-5 (k = 4) or 6e-7 (k = 5).
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.mcmc.chain_stats import ess
from nfvi.mcmc.samplers import hmc, nuts
from nfvi.mcmc.starts import chain_seeds
from nfvi.targets import LogDensity, Target

matplotlib.use("Agg")

MEAN = (1.0, -2.0)
SD = (0.5, 3.0)
CORRELATION = 0.6


def gaussian() -> LogDensity:
    """Two correlated normals of different scale."""

    def log_prob(z: Tensor) -> Tensor:
        a, b = ((z - z.new_tensor(MEAN)) / z.new_tensor(SD)).unbind(-1)
        return -0.5 * (a**2 - 2 * CORRELATION * a * b + b**2) / (1 - CORRELATION**2)

    return LogDensity(log_prob, 2, name="gaussian")


def two_modes(z: Tensor) -> Tensor:
    """N(−10, 1) and N(10, 1), half each."""
    return torch.logaddexp(-0.5 * (z[..., 0] - 10) ** 2, -0.5 * (z[..., 0] + 10) ** 2)


def funnel(z: Tensor) -> Tensor:
    """Neal's funnel, centred: v ~ N(0, 3), x | v ~ N(0, exp(v/2)), nine of them."""
    v, x = z[..., 0], z[..., 1:]
    return -0.5 * (v / 3) ** 2 - 0.5 * (x**2 * (-v).exp()[..., None] + v[..., None]).sum(-1)


def standard(z: Tensor) -> Tensor:
    return -0.5 * (z**2).sum(-1)


class Scale(Target):
    """A model with two sites: x ~ N(0, 1) (vector of 2) and s = exp(z), log s ~ N(0, 1)."""

    dim = 3
    name = "scale"
    named = True

    def log_prob(self, z: Tensor) -> Tensor:
        return standard(z)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"x": z[:, :2], "s": z[:, 2].exp()}

    def unconstrain(self, sites: dict[str, Tensor]) -> Tensor:
        return torch.cat([sites["x"], sites["s"].log()[..., None]], -1)


@pytest.fixture(scope="module")
def run():
    return nuts(gaussian(), draws=300, warmup=200, chains=2, seed=3, dtype=torch.float64)


def assert_gaussian_moments(run, standard_errors: float) -> None:
    z = run.draws
    flat = z.flatten(0, 1)
    for j in (0, 1):
        se = SD[j] / math.sqrt(ess(z[..., j], "mean"))
        assert abs(flat[:, j].mean() - MEAN[j]) < standard_errors * se
        # log sd of a normal sample has standard error 1/√(2 ESS)
        error = abs(math.log(flat[:, j].std() / SD[j]))
        assert error < standard_errors / math.sqrt(2 * ess(z[..., j], "sd"))
    # Fisher's z of a correlation has standard error 1/√ESS, ESS that of the product
    product = (z - z.new_tensor(MEAN)).prod(-1)
    found = float(torch.corrcoef(flat.T)[0, 1])
    gap = abs(math.atanh(found) - math.atanh(CORRELATION))
    assert gap < standard_errors / math.sqrt(ess(product, "mean"))


def test_nuts_draws_have_the_moments_of_the_target(run):
    assert_gaussian_moments(run, 4)
    assert max(float(r.max()) for r in run.rhat.values()) < 1.05
    assert run.divergences.tolist() == [0, 0]


@pytest.mark.parametrize("options", [{}, {"num_steps": 5}, {"mass": "dense"}])
def test_hmc_draws_have_the_moments_of_the_target(options):
    run = hmc(gaussian(), draws=600, warmup=300, chains=2, seed=1, dtype=torch.float64, **options)
    assert_gaussian_moments(run, 4)
    if "num_steps" in options:
        assert (run.draw_gradients == 5).all()


def test_shapes_and_costs(run):
    assert run.draws.shape == (2, 300, 2)
    assert run.draws.dtype == torch.float64
    assert run.diverging.shape == run.draw_gradients.shape == run.log_prob.shape == (2, 300)
    assert run.accept.shape == run.step_size.shape == run.divergences.shape == (2,)
    assert (run.accept > 0.6).all()
    assert (run.accept <= 1).all()
    # every leapfrog step is one gradient, and warm-up has some too
    assert (run.draw_gradients >= 1).all()
    assert run.gradient_evaluations > int(run.draw_gradients.sum())
    assert 0 < run.warmup_time + run.sampling_time <= run.wall_time
    torch.testing.assert_close(run.log_prob[1], run.target.log_prob(run.draws[1]))
    assert run.ess_bulk["z"].shape == run.ess_tail["z"].shape == run.rhat["z"].shape == (2,)


def test_gradient_evaluations_are_counted_one_by_one():
    calls = 0

    def counted(z: Tensor) -> Tensor:
        nonlocal calls
        calls += z.requires_grad
        return standard(z)

    target = LogDensity(counted, 2)
    target.check()
    calls = 0
    run = nuts(target, draws=10, warmup=20, chains=2, seed=0)
    # besides, each start is checked by one gradient
    assert run.gradient_evaluations == calls - 2


def test_sample_is_all_draws_or_some_of_them(run):
    assert torch.equal(run.sample(), run.draws.reshape(600, 2))
    some = run.sample(50, seed=0)
    assert some.shape == (50, 2)
    assert len(some.unique(dim=0)) == len({tuple(z) for z in some.tolist()})
    assert {tuple(z) for z in some.tolist()} <= {tuple(z) for z in run.sample().tolist()}
    assert torch.equal(some, run.sample(50, seed=0))
    for n in (0, 601, 2.0, True):
        with pytest.raises(ValueError, match="n must be an integer from 1 to 600"):
            run.sample(n)


def test_a_model_gives_its_sites_by_name():
    run = nuts(Scale(), draws=30, warmup=30, chains=2, seed=0)
    assert {k: tuple(x.shape) for k, x in run.sites().items()} == {"x": (2, 30, 2), "s": (2, 30)}
    assert {k: tuple(x.shape) for k, x in run.sample().items()} == {"x": (60, 2), "s": (60,)}
    assert (run.sites()["s"] > 0).all()
    assert [row.name for row in run.table] == ["x[0]", "x[1]", "s"]
    torch.testing.assert_close(run.sites()["s"], run.draws[..., 2].exp())


def test_a_pyro_model():
    """y ~ N(mu, 1) with mu ~ N(0, 1) and y = 2: mu | y ~ N(1, 1/2); s ~ LogNormal(0, 1) apart."""

    def model(y: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 1.0))
        pyro.sample("s", dist.LogNormal(y.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    init = {"mu": torch.tensor(1.0), "s": torch.tensor(2.0)}
    run = nuts(model, torch.tensor(2.0), draws=200, warmup=100, chains=2, seed=0, init=init)
    assert run.starts[0].tolist() == pytest.approx([1.0, math.log(2)])
    mu = run.sites()["mu"]
    assert abs(mu.mean() - 1) < 4 * math.sqrt(0.5 / ess(mu, "mean"))
    assert (run.sites()["s"] > 0).all()


def test_starts_of_a_model_may_be_given_by_site():
    sites = {"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "s": torch.tensor([1.0, math.e])}
    run = nuts(Scale(), draws=1, warmup=0, chains=2, seed=0, init=sites)
    torch.testing.assert_close(run.starts, torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 1.0]]))
    with pytest.raises(ValueError, match="dict of sites needs a model"):
        nuts(gaussian(), init={"z": [0.0, 0.0]})


def test_the_seed_fixes_every_bit():
    def draws(**options) -> Tensor:
        settings = {"draws": 10, "warmup": 20, "chains": 2, "seed": 5, **options}
        return nuts(gaussian(), **settings).draws

    first = draws()
    torch.rand(3)  # the global state is not what fixes them
    assert torch.equal(first, draws())
    assert not torch.equal(first, draws(seed=6))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[:1], draws(chains=1))


def test_a_fresh_seed_is_kept_and_repeats_the_run():
    first = nuts(gaussian(), draws=5, warmup=5, chains=1)
    assert first.seed != nuts(gaussian(), draws=5, warmup=5, chains=1).seed
    again = nuts(gaussian(), draws=5, warmup=5, chains=1, seed=first.seed)
    assert torch.equal(first.draws, again.draws)


def test_chain_seeds_do_not_depend_on_how_many_there_are():
    seeds = chain_seeds(0, 100)
    assert all(chain_seeds(0, n) == seeds[:n] for n in range(1, 100))
    assert len(set(seeds)) == 100


def test_no_global_state_changes():
    torch.manual_seed(0)
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    for kernel in (nuts, hmc):
        kernel(standard, dim=2, draws=5, warmup=5, chains=2, dtype=torch.float64)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_default_dtype() == dtype
    assert torch.distributions.Distribution._validate_args == __debug__
    assert pyro.distributions.is_validation_enabled() == __debug__
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode):
    with mode():
        run = nuts(standard, dim=2, draws=5, warmup=5, chains=1, seed=0)
    assert torch.equal(run.draws, nuts(standard, dim=2, draws=5, warmup=5, chains=1, seed=0).draws)


def test_one_dimension_and_no_warmup():
    run = nuts(standard, dim=1, draws=4, warmup=0, chains=1, seed=0)
    assert run.draws.shape == (1, 4, 1)
    assert run.rhat["z"].isnan().all()
    assert "One chain gives no R-hat" in str(run)
    assert "nan" not in str(nuts(standard, dim=1, draws=1, warmup=0, chains=1, seed=0))


def test_divergences_are_found_on_a_centred_funnel():
    options = {"dim": 10, "draws": 150, "warmup": 20, "chains": 2, "seed": 0, "mass": "identity"}
    run = nuts(funnel, step_size=1.0, **options)
    assert (run.divergences > 0).all()
    assert torch.equal(run.divergences, run.diverging.sum(1))
    assert f"{int(run.diverging.sum())} draws diverged" in str(run)


def test_a_diverged_draw_of_hmc_stays_where_it_was():
    options = {"dim": 3, "draws": 300, "warmup": 20, "chains": 2, "seed": 0, "mass": "identity"}
    run = hmc(funnel, step_size=0.5, **options)
    assert run.diverging.any()
    stayed = (run.draws[:, 1:] == run.draws[:, :-1]).all(-1)
    assert stayed[run.diverging[:, 1:]].all()


def test_rhat_is_large_when_chains_sit_in_separate_modes():
    init = torch.tensor([[-10.0], [10.0]])
    run = nuts(two_modes, dim=1, init=init, chains=2, draws=100, warmup=100, seed=0)
    assert torch.equal(run.starts, init)
    assert run.rhat["z"] > 1.5
    assert "the chains disagree" in str(run)


def test_draws_cut_by_the_tree_depth_are_reported():
    run = nuts(gaussian(), draws=20, warmup=50, chains=2, seed=0, max_tree_depth=1)
    assert (run.draw_gradients <= 1).all()
    assert "40 draws were cut at 1 gradients" in str(run)


def test_a_fixed_step_is_not_adapted():
    run = hmc(standard, dim=2, draws=5, warmup=30, chains=2, seed=0, step_size=0.3, num_steps=4)
    assert run.step_size.tolist() == [0.3, 0.3]
    run = hmc(standard, dim=2, draws=5, warmup=30, chains=1, step_size=0.25, trajectory_length=1.0)
    assert (run.draw_gradients == 4).all()
    tiny = hmc(standard, dim=1, draws=1, warmup=0, chains=1, step_size=1e-6)
    assert tiny.draw_gradients.item() == 1024


def test_identity_mass_leaves_the_scale_alone():
    """At unit mass the step of a narrow normal is of its sd; adapted, of the order of one."""

    def narrow(z: Tensor) -> Tensor:
        return standard(20 * z)

    options = {"dim": 2, "draws": 2, "warmup": 150, "chains": 1, "seed": 0, "init": torch.zeros(2)}
    assert nuts(narrow, mass="identity", **options).step_size.item() < 0.15
    assert nuts(narrow, mass="diagonal", **options).step_size.item() > 0.3


def test_not_a_number_is_a_divergence_not_an_error():
    def square_root(z: Tensor) -> Tensor:
        return (1 - (z**2).sum(-1)).sqrt()  # nan outside the unit disc

    target = LogDensity(square_root, 2, batched=True)
    target.check = lambda *_: None  # the probe points are outside
    target._evaluators[torch.float32, torch.device("cpu")] = square_root
    run = nuts(target, draws=50, warmup=50, chains=2, seed=0)
    assert run.draws.isfinite().all()
    assert (run.draws.norm(dim=-1) < 1).all()


@pytest.mark.parametrize("init", [[[0.5, 1.0], [2.0, 3.0]], np.array([[0.5, 1], [2, 3]])])
def test_starts_are_taken_in_any_form(init):
    run = nuts(standard, dim=2, draws=1, warmup=0, chains=2, init=init)
    assert run.starts.tolist() == [[0.5, 1.0], [2.0, 3.0]]
    assert run.draws.dtype == (torch.float64 if isinstance(init, np.ndarray) else torch.float32)
    one = nuts(standard, dim=2, draws=1, warmup=0, chains=3, init=init[0])
    assert one.starts.tolist() == [[0.5, 1.0]] * 3


def test_starts_avoid_places_without_a_density():
    def half(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0, standard(z), torch.full_like(z[..., 0], -math.inf))

    run = nuts(half, dim=2, draws=1, warmup=0, chains=10, seed=0)
    assert (run.starts[:, 0] > 0).all()
    assert (run.starts.abs() < 2).all()
    with pytest.raises(ValueError, match=r"init of chain 1, \[-1\.0, 0\.0\]"):
        nuts(half, dim=2, chains=2, init=[[1.0, 0.0], [-1.0, 0.0]])


def test_no_start_at_all_is_said():
    class Nowhere(Scale):
        def log_prob(self, z: Tensor) -> Tensor:
            return standard(z) - math.inf

    with pytest.raises(TargetError, match="no point with a finite log-density"):
        nuts(Nowhere(), draws=1, warmup=0, chains=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws must be an integer of at least 1, got 0"),
        ({"draws": 10.0}, "draws must be an integer"),
        ({"chains": 0}, "chains must be an integer of at least 1"),
        ({"chains": True}, "chains must be an integer"),
        ({"warmup": -1}, "warmup must be an integer of at least 0"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"seed": 2**63}, "seed must be an integer from 0"),
        ({"step_size": 0.0}, "step_size must be a positive number"),
        ({"step_size": math.nan}, "step_size must be a positive number"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1"),
        ({"mass": "full"}, "mass must be 'diagonal', 'dense' or 'identity', got 'full'"),
        ({"dtype": torch.int64}, "dtype must be a floating-point type"),
        ({"init": torch.zeros(3)}, r"init has shape \(3,\).*\(4, 2\).*\(2,\)"),
        ({"init": torch.zeros(3, 2)}, r"init has shape \(3, 2\)"),
        ({"init": torch.zeros(4, 2, 1)}, r"init has shape \(4, 2, 1\)"),
        ({"init": "origin"}, "init must be numbers"),
        ({"init": [[1.0], [1.0, 2.0]]}, "init must be numbers"),
    ],
)
@pytest.mark.parametrize("kernel", [nuts, hmc])
def test_bad_arguments_are_named(kernel, options, message):
    with pytest.raises(ValueError, match=message):
        kernel(gaussian(), **options)


def test_bad_arguments_of_one_kernel_are_named():
    with pytest.raises(ValueError, match="max_tree_depth must be an integer of at least 1"):
        nuts(gaussian(), max_tree_depth=0)
    with pytest.raises(ValueError, match="num_steps must be an integer from 1 to 1024"):
        hmc(gaussian(), num_steps=0)
    with pytest.raises(ValueError, match="trajectory_length must be a positive number"):
        hmc(gaussian(), trajectory_length=-1.0)
    with pytest.raises(ValueError, match="exclude each other"):
        hmc(gaussian(), num_steps=3, trajectory_length=1.0)
    with pytest.raises(TargetError, match="dim="):
        nuts(standard)


def interrupted_after(calls: int) -> LogDensity:
    """A standard normal that gets a Ctrl-C at a given evaluation."""
    left = calls

    def log_prob(z: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return standard(z)

    target = LogDensity(log_prob, 2, batched=True)
    target.check()
    left = calls
    return target


def test_ctrl_c_keeps_what_is_finished():
    options = {"draws": 20, "warmup": 20, "chains": 3, "seed": 0}
    whole = nuts(standard, dim=2, **options)
    first = 1 + nuts(standard, dim=2, **{**options, "chains": 1}).gradient_evaluations
    with pytest.raises(KeyboardInterrupt):
        nuts(interrupted_after(20), **options)
    # within the second chain, whose draws so far are dropped
    with pytest.warns(RuntimeWarning, match="1 of 3 chains kept, of 20 draws"):
        part = nuts(interrupted_after(first + 150), **options)
    assert part.interrupted
    assert torch.equal(part.draws, whole.draws[:1])
    # within the draws of the first
    with pytest.warns(RuntimeWarning, match="1 of 3 chains kept"):
        part = nuts(interrupted_after(first - 10), **options)
    n = part.draws.shape[1]
    assert 4 <= n < 20
    assert torch.equal(part.draws, whole.draws[:1, :n])
    assert part.diverging.shape == part.draw_gradients.shape == (1, n)
    assert "Interrupted" in str(part)


@pytest.fixture
def ctrl_c():
    """Python's own answer to SIGINT; a job in the background starts with none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.process_wide
def test_a_real_signal_interrupts():
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="interrupted"):
        run = nuts(standard, dim=2, draws=10**6, warmup=10, chains=2, seed=0)
    timer.join()
    assert run.interrupted
    assert run.draws.shape[1] >= 4
    assert time.monotonic() - began < 60


def test_progress_is_shown_when_asked_for(capsys):
    options = {"dim": 1, "draws": 3, "warmup": 2, "chains": 2}
    nuts(standard, **options)
    assert capsys.readouterr().err == ""  # pytest's stderr is no terminal
    nuts(standard, progress=True, **options)
    shown = capsys.readouterr().err
    assert "NUTS chain 2/2" in shown
    assert "5/5" in shown


def test_the_text_is_aligned_and_says_what_was_done(run):
    text = str(run)
    assert "NUTS on gaussian: 2 chains of 300 draws after 200 of warm-up; seed 3" in text
    lines = text.splitlines()
    top = next(i for i, line in enumerate(lines) if "r_hat" in line)
    assert len({len(line) for line in lines[top : top + 3]}) == 1
    assert lines[top + 1].startswith("z[0]")
    assert "gaussian" in repr(run)
    row = run.table[1]
    assert row.mean == pytest.approx(float(run.draws[..., 1].mean()))
    inside = (run.draws[..., 1] >= row.hdi_low) & (run.draws[..., 1] <= row.hdi_high)
    assert 0.94 < float(inside.double().mean()) < 0.95


# ArviZ 0.23 calls functions of pandas in ways that newer ones deprecate.
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_the_summary_is_that_of_arviz(run):
    table = run.summary()
    names = ["mean", "sd", "hdi_3%", "hdi_97%", "mcse_mean", "mcse_sd"]
    names += ["ess_bulk", "ess_tail", "r_hat"]
    assert list(table.columns) == names and list(table.index) == ["z[0]", "z[1]"]
    assert table.loc["z[1]", "r_hat"] == run.table[1].rhat
    assert table.loc["z[1]", "ess_tail"] == run.table[1].ess_tail
    assert len(str(table).splitlines()) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        az = pytest.importorskip("arviz")
    theirs = az.summary(run.to_arviz(), round_to="none")
    if not {"hdi_3%", "hdi_97%"} <= set(theirs):  # of ArviZ 1.x, by its other names
        pytest.skip("another ArviZ has other columns")
    assert list(theirs.columns) == names and list(theirs.index) == list(table.index)
    exact = ["mean", "sd", "hdi_3%", "hdi_97%", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]
    np.testing.assert_allclose(table[exact], theirs[exact].astype(float), rtol=1e-5)
    # Ours is that of ArviZ 1.x; 0.x has a normal's formula with another ESS (11 % apart here).
    np.testing.assert_allclose(table["mcse_sd"], theirs["mcse_sd"].astype(float), rtol=0.2)


# ArviZ 0.23 calls a function of Matplotlib in a way that 3.11 deprecates.
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")
def test_to_arviz(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        az = pytest.importorskip("arviz")
    data = run.to_arviz()
    assert list(az.summary(data).index) == ["z[0]", "z[1]"]
    assert az.plot_trace(data) is not None
    np.testing.assert_array_equal(data["posterior"]["z"].values, run.draws.numpy())
    stats = data["sample_stats"]
    np.testing.assert_array_equal(stats["lp"].values, run.log_prob.numpy())
    np.testing.assert_array_equal(stats["diverging"].values, run.diverging.numpy())
    np.testing.assert_array_equal(stats["n_steps"].values, run.draw_gradients.numpy())
    assert data["posterior"].attrs["method"] == "NUTS"
    assert data["posterior"].attrs["seed"] == 3


def test_to_arviz_with_what_the_target_knows():
    target = LogDensity(standard, 2)
    target.dims, target.coords = {"z": ["axis"]}, {"axis": ("east", "north")}
    data = hmc(target, draws=4, warmup=4, chains=1, seed=0).to_arviz()
    assert data["posterior"]["z"].sel(axis="north").shape == (1, 4)
    assert "observed_data" not in list(data)


@pytest.mark.parametrize("init", [None, torch.zeros(2)])
def test_a_device_that_is_not_there(init):
    with pytest.raises(ValueError, match="device='gpu' cannot be used here"):
        nuts(standard, dim=2, draws=4, warmup=4, chains=1, init=init, device="gpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda():
    state = torch.cuda.get_rng_state()
    options = {"dim": 2, "draws": 20, "warmup": 20, "chains": 2, "seed": 0}
    run = nuts(standard, device="cuda", **options)
    assert run.draws.device.type == "cuda"
    assert torch.equal(run.draws, nuts(standard, device="cuda", **options).draws)
    assert torch.equal(state, torch.cuda.get_rng_state())
    assert run.sample(5, seed=0).device.type == "cuda"
    assert "NUTS" in str(run)
    assert run.to_arviz()["posterior"]["z"].shape == (2, 20, 2)
    start = torch.ones(2, device="cuda", dtype=torch.float64)
    followed = hmc(standard, init=start, **options)
    assert followed.draws.device.type == "cuda"
    assert followed.draws.dtype == torch.float64
