"""Where guides start: the best of several Gaussians, and what init= of a fit makes of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import eight_schools, eight_schools_noncentered, funnel, gaussian_20d, make_gaussian
from nfvi import NFVI, Checkpoint, Fit, PyroTarget, Stop
from nfvi.errors import FitError, TargetError
from nfvi.guides.bases import Base, Laplace, Normal, StudentT
from nfvi.guides.mixture import MixtureGuide
from nfvi.starts.gaussian_fit import gaussian_elbos
from nfvi.starts.starts import Start, find_start
from nfvi.targets import LogDensity, as_target, numbers_per_point
from nfvi.utils.files import read_file, write_file

DTYPE = torch.float64
SHORT = {"n_mc": 16, "progress": False}
SCHOOLS = as_target(eight_schools)
CORRELATED = make_gaussian(3, condition=100.0, seed=0)


def start(target, name: str, seed: int = 0) -> Start:
    return find_start(target, name, torch.Generator().manual_seed(seed), DTYPE)


def elbo(target, found: Start) -> float:
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(10_000, target.dim, generator=generator, dtype=DTYPE)
    return float(gaussian_elbos(target, found.loc[None], found.tril[None], noise)[0])


def short(formula: str = "planar*2", target=CORRELATED, *, seed: int = 1, **options) -> Fit:
    made = {"steps": 20, "restarts": 2, **SHORT, **options}
    return NFVI(formula, seed=seed, dtype=DTYPE).fit(target, **made)


def state_of(fit: Fit) -> dict[str, Tensor]:
    return fit.guide.state_dict()


def assert_same(a: Fit, b: Fit) -> None:
    """Bit for bit."""
    assert torch.equal(a.history.loss, b.history.loss) and a.settings == b.settings
    assert a.gradient_evaluations == b.gradient_evaluations
    assert a.batched_evaluations == b.batched_evaluations
    one, other = state_of(a), state_of(b)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class TestFinding:
    @pytest.mark.parametrize(
        "target", [SCHOOLS, as_target(eight_schools_noncentered), funnel, gaussian_20d], ids=str
    )
    def test_auto_is_never_worse_than_a_single_start(self, target):
        """By more than the noise of 1 000 draws, by which it chooses, and of the fits: 0.1 nats."""
        best = elbo(target, start(target, "auto"))
        for name in ("gaussian", "laplace", "pathfinder"):
            try:
                assert best > elbo(target, start(target, name)) - 0.1
            except FitError:
                assert name == "laplace"

    def test_the_mode_of_a_funnel_is_far_worse_and_not_picked(self):
        chosen = start(funnel, "auto")
        assert chosen.name == "gaussian"
        assert elbo(funnel, start(funnel, "laplace")) < elbo(funnel, chosen) - 100

    def test_the_centred_eight_schools_have_no_laplace_start(self):
        with pytest.raises(FitError, match='use init="gaussian" or "auto"'):
            start(SCHOOLS, "laplace")
        assert start(SCHOOLS, "auto").name == "gaussian"

    def test_an_ill_conditioned_gaussian_is_exact_at_once(self):
        found = start(gaussian_20d, "auto")
        assert abs(elbo(gaussian_20d, found) - gaussian_20d.log_normalizer) < 1e-3
        assert found.iterations < 300

    def test_it_is_fixed_by_its_generator(self):
        a, b = start(funnel, "auto", 3), start(funnel, "auto", 3)
        assert torch.equal(a.loc, b.loc) and torch.equal(a.tril, b.tril) and a.elbo == b.elbo

    def test_in_many_dimensions_it_is_diagonal(self):
        target = LogDensity(lambda z: -0.5 * (z / 2).square().sum(-1), 301, batched=True)
        found = start(target, "auto")
        assert found.tril.shape == (301,)
        torch.testing.assert_close(found.tril, torch.full_like(found.tril, 2.0), rtol=0.02, atol=0)

    def test_it_counts_the_gradients_that_the_target_gives(self):
        gradients, batches = [], []

        def log_prob(z: Tensor) -> Tensor:
            batches.append(len(z))
            if z.requires_grad:
                gradients.append(len(z))
            return -0.5 * (z - 1).square().sum(-1)

        target = LogDensity(log_prob, 2, batched=True)
        target.check(DTYPE)
        numbers_per_point(target, torch.zeros(2, 2, dtype=DTYPE))  # counted once for a target
        for name in ("auto", "gaussian", "laplace", "pathfinder"):
            gradients.clear()
            batches.clear()
            found = start(target, name)
            assert (found.iterations, found.gradient_evaluations) == (len(batches), sum(gradients))

    def test_none_is_found_where_every_gaussian_leaves_the_support(self):
        target = LogDensity(
            lambda z: torch.where(z[:, 0] > -1, -z[:, 0], -torch.inf), 1, batched=True, name="half"
        )
        with pytest.raises(FitError, match="no Gaussian with a finite ELBO was found on 'half'"):
            start(target, "auto")


class TestBases:
    @pytest.mark.parametrize("base", [Normal(), Laplace(), StudentT(5.0), StudentT(3.0)], ids=str)
    def test_sds_are_those_of_draws(self, base):
        """400 000 draws: the sd of Student's t with 3 degrees is the noisiest, to about 2 %."""
        draws = base.sample((400_000,), generator=torch.Generator().manual_seed(0), dtype=DTYPE)
        assert abs(float(draws.std()) / base.sd - 1) < 0.05

    @pytest.mark.parametrize(
        ("df", "quartile"), [(1.0, 1.0), (2.0, (2 / 3) ** 0.5), (0.01, 6.36418192840042e28)]
    )
    def test_without_a_variance_it_is_the_interquartile_range(self, df, quartile):
        assert StudentT(df).sd == pytest.approx(quartile / 0.67448975, rel=1e-8)

    @pytest.mark.parametrize("base", ["laplace", "studentt(df=5)"])
    def test_the_guide_has_the_covariance_of_the_start(self, base):
        """Within 5 % of that of the target, from 100 000 draws before anything has moved."""
        nfvi = NFVI("loc", base=base, seed=0, dtype=DTYPE, jitter=0.0)
        fit = nfvi.fit(CORRELATED, init="gaussian", lr=1e-12, steps=1, restarts=1, **SHORT)
        found = fit.guide.sample(100_000, generator=torch.Generator().manual_seed(0)).T.cov()
        scale = CORRELATED.covariance.diagonal().sqrt()
        off = (found - CORRELATED.covariance) / torch.outer(scale, scale)
        assert off.abs().max() < 0.05

    def test_a_base_that_does_not_say_is_refused(self):
        class Unknown(Base):
            def sample(self, shape, *, generator=None, dtype=None, device=None):
                return torch.randn(shape, generator=generator, dtype=dtype, device=device)

            def log_prob(self, z):
                return Normal().log_prob(z)

            def __str__(self) -> str:
                return "unknown"

        with pytest.raises(
            ValueError, match=r"init='auto' needs the spread of the base: .*unknown"
        ):
            NFVI("loc", base=Unknown()).fit(CORRELATED, init="auto", steps=1)


class TestInit:
    def test_zeros_is_no_init(self):
        plain, zeros = short(), short(init="zeros")
        assert_same(plain, zeros)
        assert plain.guide.placement is None and plain.settings["init"] == "zeros"
        assert "init" not in str(plain).splitlines()[1]

    @pytest.mark.parametrize("init", ["gaussian", "laplace", "pathfinder"])
    def test_words_place_every_restart(self, init):
        """On a Gaussian all of them are exact but Pathfinder, and so is the guide before it moves.

        Jitter 0 leaves the identity of ``loc``; what is left is the rounding of the placement.
        """
        nfvi = NFVI("loc", jitter=0.0, seed=0, dtype=DTYPE)
        fit = nfvi.fit(CORRELATED, init=init, steps=1, lr=1e-12, restarts=2, **SHORT)
        assert fit.settings["init"] == init and fit.settings["placement"] == "full"
        for restart in fit.restarts:
            assert abs(CORRELATED.log_normalizer - restart.elbo) < (
                0.1 if init == "pathfinder" else 1e-5
            )

    def test_auto_says_what_it_took(self):
        fit = short(target=funnel, init="auto")
        assert fit.settings["init"] == "auto (gaussian)"
        assert "init auto (gaussian)" in str(fit).splitlines()[1]

    def test_a_start_repeats_and_does_not_change_how_flows_start(self):
        first = short(init="gaussian")
        assert_same(first, short(init="gaussian"))
        plain = state_of(short(lr=1e-300, steps=1, restarts=1))
        placed = state_of(short(lr=1e-300, steps=1, restarts=1, init="gaussian"))
        assert all(torch.equal(plain[name], placed[name]) for name in plain)

    def test_what_the_start_takes_is_counted(self):
        plain, placed = short(), short(init="gaussian")
        found = find_start(
            CORRELATED, "gaussian", torch.Generator().manual_seed(1 + 3), torch.float64
        )
        assert plain.gradient_evaluations == 20 * 16 * 2 and plain.batched_evaluations == 20
        assert placed.batched_evaluations == 20 + found.iterations
        assert placed.gradient_evaluations == 20 * 16 * 2 + found.gradient_evaluations
        assert f"in {placed.batched_evaluations:,} batches" in " ".join(str(placed).split())

    def test_it_helps(self):
        """A Gaussian of condition 10⁴ after 100 steps: exact, and nats away from N(0, I)."""
        options = {"target": gaussian_20d, "steps": 100, "restarts": 1, "anneal": False}
        plain, placed = short("realnvp*2", **options), short("realnvp*2", init="auto", **options)
        assert gaussian_20d.log_normalizer - placed.elbo < 0.05 and placed.elbo > plain.elbo + 1

    def test_resuming_is_bit_for_bit(self, tmp_path):
        file = tmp_path / "fit.ckpt"
        options = {"init": "auto", "target": funnel}
        whole = short(**options)
        stop = lambda state: Stop("enough") if state.step == 10 else None  # noqa: E731
        short(**options, callbacks=[Checkpoint(file, 10), stop])
        tensors, values = read_file(file, "checkpoint", None)
        # A run that a callback has stopped has nothing left; one that was killed has.
        write_file(file, "checkpoint", tensors, {**values, "stopped": None})
        resumed = NFVI.resume(file).fit(funnel, progress=False)
        assert_same(whole, resumed)
        with pytest.raises(ValueError, match="init= is fixed by the checkpoint"):
            NFVI.resume(file).fit(funnel, init="zeros")

    @pytest.mark.parametrize("restarts", [1, 2])
    def test_it_is_saved_loaded_and_refined(self, restarts, tmp_path):
        fit = short(init="gaussian", restarts=restarts)
        fit.save(tmp_path / "fit.nfvi")
        loaded = Fit.load(tmp_path / "fit.nfvi", target=CORRELATED)
        assert loaded.settings["init"] == "gaussian"
        assert loaded.batched_evaluations == fit.batched_evaluations
        z = fit.sample(5, seed=0)
        assert torch.equal(loaded.sample(5, seed=0), z)
        before = fit.guide.placement.tril.clone()
        for one in (fit, loaded):
            count = one.batched_evaluations
            one.refine(5, progress=False)
            assert one.batched_evaluations == count + 5
            assert torch.equal(one.guide.placement.tril, before)

    def test_files_of_earlier_versions_had_one_batch_a_step(self, tmp_path):
        file = tmp_path / "fit.nfvi"
        short(init="gaussian").save(file)
        tensors, values = read_file(file, "fit", None)
        del values["batched_evaluations"], values["settings"]["init"]
        write_file(file, "fit", tensors, values)
        loaded = Fit.load(file, target=CORRELATED)
        assert loaded.batched_evaluations == loaded.steps == 20
        assert str(loaded)

    def test_it_goes_with_the_other_words(self):
        fit = short(
            init="auto", lr="auto", steps="auto", n_mc="auto", combine="mixture", anneal=False
        )
        assert fit.stopped == "converged"
        assert CORRELATED.log_normalizer - fit.elbo < 0.05
        ladder = 150
        assert fit.batched_evaluations > fit.steps + ladder

    def test_pruning_keeps_the_placement(self):
        fit = short(init="gaussian", restarts=4, prune=True, steps=40)
        assert fit.guide.placement is not None


class TestPoints:
    def test_a_point_is_the_centre_of_a_guide_of_unit_scale(self):
        point = [1.0, -2.0, 0.5]
        nfvi = NFVI("loc", jitter=0.0, seed=0, dtype=DTYPE)
        for init in (point, torch.tensor(point), torch.tensor(point).numpy()):
            fit = nfvi.fit(CORRELATED, init=init, steps=1, lr=1e-12, restarts=1, **SHORT)
            assert fit.settings["init"] == "point"
            z = torch.zeros(1, 3, dtype=DTYPE)
            moved, ladj = fit.guide.transform(z)
            torch.testing.assert_close(moved[0], torch.tensor(point, dtype=DTYPE))
            assert float(ladj) == 0

    def test_sites_are_taken_to_unconstrained_space(self):
        sites = {"mu": 1.0, "tau": 2.0, "theta": torch.arange(8.0)}
        target = PyroTarget(eight_schools)
        fit = short("loc", target, init=sites, steps=1, lr=1e-12, restarts=1)
        centre = target.constrain(fit.guide.placement.loc[None])
        for name, value in sites.items():
            expected = torch.as_tensor(value, dtype=DTYPE)
            torch.testing.assert_close(centre[name][0], expected)


class TestFits:
    def test_parameters_and_placement_are_copied(self):
        """A fit that continues with no step to speak of has the guide that it was given."""
        first = short(init="gaussian", steps=100)
        again = short(init=first, seed=2, steps=1, lr=1e-300, restarts=3)
        assert again.settings["init"] == "fit" and len(again.restarts) == 3
        ours, given = state_of(again), state_of(first)
        assert all(torch.equal(ours[name], given[name]) for name in given)
        assert all(not restart.tempered for restart in again.restarts)

    def test_it_can_be_gone_on_from(self, tmp_path):
        """Copied placements are in checkpoints as others are."""
        first, file = short(init="gaussian"), tmp_path / "fit.ckpt"
        whole = short(init=first, seed=2, callbacks=[Checkpoint(file, 20)])
        assert_same(whole, NFVI.resume(file).fit(CORRELATED, progress=False))

    def test_another_formula_takes_mean_and_covariance(self):
        """Of 10 000 draws, on which a correlation has an error of 0.01: 0.06 is six of them."""
        first = short("scale-loc", init="gaussian", steps=100)
        fit = short("loc", init=first, lr=1e-12)
        assert fit.settings["init"] == "fit (mean and covariance)"
        tril = fit.guide.placement.tril
        exact = first.guide.sample(200_000, generator=torch.Generator().manual_seed(5)).T.cov()
        scale = exact.diagonal().sqrt()
        assert ((tril @ tril.T - exact) / torch.outer(scale, scale)).abs().max() < 0.06

    def test_another_formula_takes_mean_and_sd_in_one_dimension(self):
        """Of 10 000 draws, with errors of 0.01 and 0.007 sd."""
        quiet = {"dim": 1, "progress": False, "restarts": 2}
        target = lambda z: -0.5 * ((z - 3) / 2).square().sum(-1)  # noqa: E731
        first = NFVI("scale-loc", seed=1).fit(target, init="laplace", steps=1, lr=1e-12, **quiet)
        place = NFVI("monotone", seed=1).fit(target, init=first, steps=1, **quiet).guide.placement
        assert abs(float(place.loc) - 3) < 0.12 and abs(float(place.tril) / 2 - 1) < 0.05

    def test_each_component_of_a_mixture_becomes_a_restart(self):
        first = short(init="gaussian")
        parts = [first._trainer.guide(i) for i in (0, 1)]
        first.guide = MixtureGuide(parts, [0.3, 0.7]).requires_grad_(False)
        fit = short(init=first, seed=2, steps=1, lr=1e-300, restarts=None)
        assert len(fit.restarts) == 2
        for i, part in enumerate(parts):
            ours, given = fit._trainer.guide(i).state_dict(), part.state_dict()
            assert all(torch.equal(ours[name], given[name]) for name in given)
        with pytest.raises(ValueError, match=r"mixture of 2 guides.*restarts=3; leave restarts"):
            short(init=first, restarts=3)

    def test_a_fit_of_another_dimension_is_refused(self):
        message = "init= is a fit with dim=3, and 'funnel' has dim=10: give a fit of the same"
        with pytest.raises(TargetError, match=message):
            short(target=funnel, init=short())

    def test_a_guide_is_named_in_one_line(self):
        with pytest.raises(ValueError, match=r"init= got a Guide; it takes 'auto'.* or a Fit$"):
            short(init=short().guide)

    def test_a_site_that_holds_no_numbers_is_named(self):
        sites = {"mu": 1.0, "tau": "x", "theta": torch.arange(8.0)}
        with pytest.raises(ValueError, match="in which site 'tau' is 'x': give a number"):
            short("loc", PyroTarget(eight_schools), init=sites)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("centre", r"init= got 'centre'; it takes 'auto', 'gaussian', .* or a Fit"),
        (torch.zeros(2), r"init= is a point of shape \(2,\), and 'gaussian' takes \(3,\)"),
        (torch.full((3,), torch.nan), "init= is the point .* not finite"),
        ({"mu": 1.0}, "init= got a dict of sites, which needs a model"),
        (object(), "init= got <object object"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(init, message):
    with pytest.raises(ValueError, match=message):
        short(init=init)


def test_other_arguments_are_checked_before_the_start_is_found(monkeypatch):
    monkeypatch.setattr("nfvi.inference.init.find_start", None)
    with pytest.raises(ValueError, match="n_mc must be"):
        short(init="auto", n_mc=1)


def test_sites_that_are_missing_are_named():
    with pytest.raises(TargetError, match=r"init= got a dict of sites: no value for .*theta"):
        short(target=SCHOOLS, init={"mu": 1.0, "tau": 2.0})
