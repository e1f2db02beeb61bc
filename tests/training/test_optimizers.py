"""From what the user calls an optimiser to one for a matrix of restarts."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, optim

from nfvi import NFVI
from nfvi.training.optimizers import BETAS, LEARNING_RATE, Adam, make_optimizer, row_wise

ROW_WISE = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "SGD"]
REFUSED = [name for name in ("Muon", "SparseAdam", "Adafactor") if hasattr(optim, name)]


def parameters(restarts: int = 1) -> Tensor:
    return torch.zeros(restarts, 3, requires_grad=True)


def normal(z: Tensor) -> Tensor:
    return -0.5 * ((z - 1) ** 2).sum(-1)


class TestMakeOptimizer:
    def test_default_is_adam(self) -> None:
        made = make_optimizer(None, parameters(), None)
        assert type(made) is Adam and isinstance(made, optim.Adam)
        assert made.defaults["betas"] == BETAS
        assert made.param_groups[0]["lr"] == LEARNING_RATE
        assert make_optimizer(None, parameters(), 0.5).param_groups[0]["lr"] == 0.5

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_default_steps_as_torch_does_to_the_last_bit(self, dtype: torch.dtype) -> None:
        start = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=dtype)
        ours, theirs = (start.clone().requires_grad_() for _ in range(2))
        optimisers = Adam(ours, 0.05), optim.Adam([theirs], lr=0.05, betas=BETAS, fused=True)
        for step in range(20):
            for leaf, optimiser in zip((ours, theirs), optimisers, strict=True):
                optimiser.param_groups[0]["lr"] = 0.05 / (1 + step)
                leaf.grad = (leaf.detach() - 1).sin()
                optimiser.step()
            assert torch.equal(ours, theirs)
        assert optimisers[0].state_dict()["state"].keys() == {0}
        known, found = (optimiser.state_dict()["state"][0] for optimiser in optimisers[::-1])
        assert known.keys() == found.keys()
        assert all(torch.equal(known[name], found[name]) for name in known)

    @pytest.mark.parametrize("name", ROW_WISE)
    def test_a_class_with_its_own_learning_rate_or_yours(self, name: str) -> None:
        cls = getattr(optim, name)
        own = cls([parameters()]).param_groups[0]["lr"]
        assert make_optimizer(cls, parameters(4), None).param_groups[0]["lr"] == own
        assert make_optimizer(cls, parameters(4), 0.25).param_groups[0]["lr"] == 0.25

    def test_a_function_is_given_the_parameters(self) -> None:
        leaf = parameters()
        made = make_optimizer(lambda p: optim.SGD(p, lr=0.3, momentum=0.5), leaf, None)
        assert made.param_groups[0]["params"][0] is leaf
        assert made.param_groups[0]["momentum"] == 0.5
        assert type(make_optimizer(partial(optim.SGD, lr=0.3), leaf, None)) is optim.SGD

    def test_lr_beside_a_function_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"lr=0\.1 beside an optimizer function"):
            make_optimizer(lambda p: optim.SGD(p, lr=0.3), parameters(), 0.1)

    @pytest.mark.parametrize("name", REFUSED)
    @pytest.mark.parametrize("restarts", [1, 3])
    def test_optimisers_of_matrices_are_refused(self, name: str, restarts: int) -> None:
        # They would take the restarts for the rows of one weight matrix.
        with pytest.raises(ValueError, match=f"{name} needs matrices or sparse gradients"):
            make_optimizer(getattr(optim, name), parameters(restarts), None)

    def test_what_may_mix_restarts_takes_one(self) -> None:
        assert isinstance(make_optimizer(optim.LBFGS, parameters(), None), optim.LBFGS)
        with pytest.raises(ValueError, match=r"LBFGS may mix .* pass restarts=1"):
            make_optimizer(optim.LBFGS, parameters(2), None)

    @pytest.mark.parametrize("wrong", ["adam", 0.1, torch.nn.Linear, object()])
    def test_anything_else_is_refused(self, wrong: object) -> None:
        with pytest.raises(TypeError, match=r"optimizer=.*torch\.optim class or a function"):
            make_optimizer(wrong, parameters(), None)  # type: ignore[arg-type]

    def test_a_function_that_returns_no_optimiser(self) -> None:
        with pytest.raises(TypeError, match="optimizer= returned list"):
            make_optimizer(lambda p: list(p), parameters(), None)  # type: ignore[arg-type, return-value]

    def test_row_wise(self) -> None:
        assert row_wise(None) and row_wise(optim.Adam)
        assert not row_wise(optim.LBFGS)
        # What a function makes is not known before it is called.
        assert not row_wise(lambda p: optim.Adam(p))


class TestInAFit:
    @pytest.mark.parametrize(
        ("optimizer", "lr"),
        [
            (None, None),
            (optim.SGD, 0.1),
            (optim.RMSprop, 0.02),
            (optim.NAdam, 0.02),
            (optim.Rprop, None),
            (lambda p: optim.Adam(p, lr=0.05, amsgrad=True), None),
        ],
    )
    def test_each_reaches_the_target(self, optimizer: object, lr: float | None) -> None:
        fit = NFVI("scale-loc", seed=0).fit(
            normal,
            dim=2,
            steps=200,
            n_mc=32,
            restarts=2,
            anneal=0.3,
            optimizer=optimizer,
            lr=lr,
        )
        loc = fit.guide.flows[1].loc
        assert loc.tolist() == pytest.approx([1.0, 1.0], abs=0.05)

    def test_lbfgs_reaches_it_in_few_steps(self) -> None:
        fit = NFVI("scale-loc", seed=0, dtype=torch.float64).fit(
            normal,
            dim=2,
            steps=10,
            n_mc=32,
            restarts=1,
            anneal=False,
            optimizer=optim.LBFGS,
            lr=1.0,
        )
        assert fit.guide.flows[1].loc.tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
        # The line search evaluates more often than once a step, and that is counted.
        assert fit.gradient_evaluations > 10 * 32

    def test_default_restarts_follow_the_optimiser(self) -> None:
        def restarts(optimizer: object) -> int:
            fit = NFVI("scale-loc", seed=0).fit(normal, dim=2, steps=2, optimizer=optimizer)
            return len(fit.restarts)

        assert restarts(None) == restarts(optim.SGD) > 1
        assert restarts(optim.LBFGS) == 1
        assert restarts(lambda p: optim.SGD(p, lr=0.1)) == 1
