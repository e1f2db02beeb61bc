"""The gradient tracker records the gradients of the step, and its ratio knows noise from signal."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.autograd.function import once_differentiable

from nfvi import NFVI, GradientTracker

DIM = 2


def normal(z):
    return -0.5 * (z**2).sum(-1)


def bent(z):
    return -0.5 * (z[..., 0] - z[..., 1] ** 2) ** 2 - 0.5 * z[..., 1] ** 2


options = {"dim": DIM, "steps": 40, "n_mc": 16, "restarts": 3}
fit = partial(NFVI("planar*2", seed=1).fit, bent, **options)


@pytest.mark.parametrize("gradient", ["path", "total"])
@pytest.mark.parametrize("restarts", [1, 3])
def test_does_not_change_the_fit(gradient, restarts):
    with_it = fit(gradient=gradient, restarts=restarts, callbacks=[GradientTracker(groups=5)])
    without = fit(gradient=gradient, restarts=restarts)
    assert torch.equal(with_it.history.elbo, without.history.elbo)
    for name, value in without.guide.state_dict().items():
        assert torch.equal(with_it.guide.state_dict()[name], value)


def test_these_are_the_gradients_that_moved_the_parameters():
    tracker = GradientTracker()
    result = fit(callbacks=[tracker], optimizer=torch.optim.SGD, lr=1e-2)
    assert set(tracker.parameters) == {"u_0", "w_0", "b_0", "u_1", "w_1", "b_1"}
    lr = result.history.lr[1:]
    for name, value in tracker.parameters.items():
        shape = (-1,) + (1,) * (value.dim() - 1)
        moved = value[1:].double() - value[:-1].double()
        expected = -lr.reshape(shape) * tracker.gradients[name][1:].double()
        # The parameters are of order 1, and rounded to float32 at every step.
        torch.testing.assert_close(moved, expected, rtol=0, atol=4e-7)


def test_shapes_and_norms():
    tracker = GradientTracker(every=3)
    result = fit(callbacks=[tracker])
    assert tracker.steps.tolist() == list(range(3, 41, 3))
    records = len(tracker)
    assert tracker.flows == ("planar", "planar")
    assert tracker.norms.shape == tracker.flow_snr.shape == (records, 3, 2)
    assert tracker.parameters["u_0"].shape == tracker.gradients["u_0"].shape == (records, 3, DIM)
    assert tracker.gradients["b_1"].shape == tracker.snr["b_1"].shape == (records, 3)
    by_hand = torch.cat(
        [tracker.gradients["u_1"], tracker.gradients["w_1"], tracker.gradients["b_1"][..., None]], 2
    )
    torch.testing.assert_close(tracker.norms[..., 1], by_hand.norm(dim=2))
    # No step of this fit is clipped, so the whole length is that of the history.
    whole = result.history.grad_norm[tracker.steps - 1]
    torch.testing.assert_close(tracker.norms.square().sum(-1).sqrt(), whole)
    assert tracker.best in range(3)


def test_every_flow_has_its_own_column():
    tracker = GradientTracker()
    result = NFVI("loc-scale-hh", seed=0).fit(
        normal, dim=3, steps=5, n_mc=16, restarts=1, callbacks=[tracker]
    )
    assert tracker.flows == ("loc", "scale", "hh") == tuple(f.name for f in result.formula)
    for i, name in enumerate(["loc_0", "rho_1", "v_2"]):
        torch.testing.assert_close(tracker.norms[..., i], tracker.gradients[name].norm(dim=-1))


def test_select_is_one_restart():
    tracker = GradientTracker(every=10)
    fit(callbacks=[tracker])
    chosen = tracker.select(2)
    assert torch.equal(chosen.norms, tracker.norms[:, 2:3])
    assert torch.equal(chosen.snr["u_0"], tracker.snr["u_0"][:, 2:3])
    assert torch.equal(chosen.parameters["w_1"], tracker.parameters["w_1"][:, 2:3])
    assert chosen.best == 0 and torch.equal(chosen.steps, tracker.steps)


def test_ratio_of_a_known_gradient():
    """For ``loc`` on N(0, I) by the path gradient, draw i has the gradient μ + z_i − z_i = μ.

    By the total gradient it is μ + z_i: the mean over n draws is μ with a standard error of
    √(d / n), and the ratio √(‖μ‖² + χ²_d / n) / √(d / n) in expectation of squares.
    """
    far, n = 0.3, 4096
    for gradient, expected in [("path", 1e3), ("total", (1 + n * far**2) ** 0.5)]:
        tracker = GradientTracker(groups=64)
        target = lambda z: -0.5 * ((z - far) ** 2).sum(-1)  # noqa: E731
        NFVI("loc", seed=0, jitter=0.0, dtype=torch.float64).fit(
            target,
            dim=DIM,
            steps=1,
            n_mc=n,
            restarts=1,
            anneal=False,
            gradient=gradient,
            draws="iid",
            callbacks=[tracker],
        )
        ratio = float(tracker.flow_snr[0, 0, 0])
        if gradient == "path":
            assert ratio > expected
        else:
            # Numerator: ± 1 / √(n far²/d) relative; denominator: 126 degrees of freedom, ± 6 %.
            assert ratio == pytest.approx(expected, rel=4 * 0.09)


def test_ratio_is_one_where_there_is_only_noise():
    """At the optimum of N(0, I) the total gradient of loc is noise: E ratio² is 1 (F distribution).

    60 independent steps of 2 numbers: ratio² has mean 1 and variance about 1, so the mean is
    within 4.5 / √60 of 1 for all but 1 seed in 10⁵.
    """
    tracker = GradientTracker(groups=16)
    NFVI("loc", seed=0, jitter=0.0, dtype=torch.float64).fit(
        normal,
        dim=DIM,
        steps=60,
        n_mc=256,
        restarts=1,
        anneal=False,
        gradient="total",
        draws="iid",
        lr=1e-9,
        callbacks=[tracker],
    )
    assert float(tracker.flow_snr.square().mean()) == pytest.approx(1, abs=4.5 / 60**0.5)


def test_ratio_is_zero_for_the_path_gradient_of_a_perfect_fit():
    tracker = GradientTracker()
    NFVI("loc", seed=0, jitter=0.0).fit(
        normal, dim=DIM, steps=3, n_mc=16, restarts=1, anneal=False, callbacks=[tracker]
    )
    assert torch.equal(tracker.flow_snr, torch.zeros(3, 1, 1))


def test_groups_that_do_not_divide_the_draws():
    tracker = GradientTracker(groups=7)
    fit(callbacks=[tracker], steps=5)
    assert tracker.flow_snr.isfinite().all()
    tracker = GradientTracker(groups=100)
    fit(callbacks=[tracker], steps=5)  # 16 draws make 16 groups
    assert tracker.flow_snr.isfinite().all()


class _NotForVmap(torch.autograd.Function):
    """½ z² whose backward reads a number, which vmap cannot."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return 0.5 * (z**2).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * z + 0 * float(grad.sum())


def test_a_target_whose_backward_cannot_be_batched():
    trackers = []
    for target in (lambda z: -_NotForVmap.apply(z), normal):
        trackers.append(GradientTracker())
        NFVI("planar*2", seed=1).fit(target, callbacks=[trackers[-1]], **options | {"steps": 5})
    torch.testing.assert_close(trackers[0].flow_snr, trackers[1].flow_snr, rtol=1e-3, atol=1e-5)


def test_goes_on_with_refine_and_starts_afresh_with_another_fit():
    tracker = GradientTracker(every=10)
    fit(callbacks=[tracker]).refine(20, callbacks=[tracker])
    assert tracker.steps.tolist() == [10, 20, 30, 40, 50, 60]
    fit(callbacks=[tracker], restarts=1)
    assert tracker.steps.tolist() == [10, 20, 30, 40] and tracker.norms.shape == (4, 1, 2)


def test_nothing_recorded():
    tracker = GradientTracker(every=1000)
    fit(callbacks=[tracker], steps=5)
    for read in ("norms", "parameters", "snr"):
        with pytest.raises(ValueError, match="no step was a multiple of every=1000"):
            getattr(tracker, read)


@pytest.mark.parametrize("arguments", [{"every": 0}, {"groups": 1}, {"every": 2.5}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="must be an integer of at least"):
        GradientTracker(**arguments)
