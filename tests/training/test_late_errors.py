"""A target that ends a fit in the middle: the error says where, and carries the last guide."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Budget, Callback, Checkpoint, Fit, FitError, TargetError, Tracker
from nfvi.targets import LogDensity


def normal(z: Tensor) -> Tensor:
    return -0.5 * (z - 3).square().sum(-1)


class Breaks:
    """A log-density that does something else from a call on."""

    def __init__(self, call: int, then: Callable[[Tensor], Tensor]) -> None:
        self.call, self.then, self.calls = call, then, 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        return normal(z) if self.calls < self.call else self.then(z)


def raising(z: Tensor) -> Tensor:
    raise ConnectionError("the server is gone")


def fit(target: Breaks, **options: object) -> Fit:
    """A fit that calls its target in each step, which one that is traced does not."""
    settings = {"dim": 2, "steps": 400, "n_mc": 16, "restarts": 2, "anneal": False}
    return NFVI("scale-loc", seed=1).fit(target, **{"compile": False, **settings, **options})


class TestTargetsThatRaise:
    def test_the_guide_is_that_of_the_step_before(self) -> None:
        states: list[Tensor] = []

        def keep(state) -> None:  # type: ignore[no-untyped-def]
            states.append(state.elbo.clone())

        with pytest.raises(
            FitError, match=r"ConnectionError in step 2\d\d: the server is"
        ) as caught:
            fit(Breaks(220, raising), callbacks=[keep])
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert f"in step {len(states) + 1}:" in str(caught.value)
        assert "error.guide" in str(caught.value) and "NFVI.resume" in str(caught.value)
        # By then the guide is near the mean of the target, 3 sd from where it started.
        draws = caught.value.guide.sample(1000, generator=torch.Generator().manual_seed(0))
        assert (draws.mean(0) - 3).abs().max() < 1

    def test_the_best_restart_is_chosen(self) -> None:
        """One of three restarts has parameters as good as the target's, by its recent ELBO."""
        seen = {}

        class Note(Callback):
            def __call__(self, state) -> None:  # type: ignore[no-untyped-def]
                seen["best"] = state.history.last("elbo", 50).mean(0).argmax()
                seen["guides"] = [state.guide(r) for r in range(3)]

        with pytest.raises(FitError) as caught:
            fit(Breaks(100, raising), restarts=3, callbacks=[Note()])
        got = dict(caught.value.guide.named_parameters())
        others = [dict(guide.named_parameters()) for guide in seen["guides"]]
        far = [sum(float((got[n] - p).detach().abs().max()) for n, p in o.items()) for o in others]
        # The last good parameters are those before the last step, which is a small one.
        assert int(torch.tensor(far).argmin()) == int(seen["best"]) and min(far) < 0.1

    def test_at_the_first_step_there_is_no_guide(self) -> None:
        target = Breaks(10**9, raising)

        class Break(Callback):
            def open(self, state) -> None:  # type: ignore[no-untyped-def]
                target.call = 0

        with pytest.raises(FitError, match=r"in step 1: .*no step was done before") as caught:
            fit(target, callbacks=[Break()])
        assert caught.value.guide is None

    def test_in_the_ranking_after_the_last_step(self) -> None:
        target = Breaks(10**9, raising)

        class Break(Callback):
            def close(self, state) -> None:  # type: ignore[no-untyped-def]
                target.call = 0

        with pytest.raises(FitError, match=r"after step 30, the last: the server") as caught:
            fit(target, steps=30, callbacks=[Break()])
        assert caught.value.guide is not None

    def test_while_refining(self) -> None:
        target = Breaks(10**9, raising)
        done = fit(target, steps=50)
        target.call = target.calls + 5
        with pytest.raises(FitError, match=r"in step 5\d: ") as caught:
            done.refine(50)
        assert caught.value.guide is not None

    def test_a_checkpoint_goes_on_from_there(self, tmp_path) -> None:  # type: ignore[no-untyped-def]
        file = tmp_path / "fit.ckpt"
        with pytest.raises(FitError):
            fit(Breaks(100, raising), callbacks=[Checkpoint(file, every=30)])
        resumed = NFVI.resume(file).fit(normal, dim=2)
        whole = fit(Breaks(10**9, raising))
        for name, value in whole.guide.state_dict().items():
            assert torch.equal(resumed.guide.state_dict()[name], value)

    def test_errors_of_callbacks_are_their_own(self) -> None:
        def broken(state) -> None:  # type: ignore[no-untyped-def]
            raise ConnectionError("of the callback")

        with pytest.raises(ConnectionError, match="of the callback"):
            fit(Breaks(10**9, raising), callbacks=[broken])
        with pytest.raises(TypeError, match="Tracker"):
            fit(Breaks(10**9, raising), callbacks=[Tracker(bad=lambda s: "word")])


def wide(z: Tensor) -> Tensor:
    return normal(z).double()


def column(z: Tensor) -> Tensor:
    return normal(z).unsqueeze(-1)


def total(z: Tensor) -> Tensor:
    return normal(z).sum()


def writing(z: Tensor) -> Tensor:
    z[:, 0] += 1
    return normal(z)


class TestTargetsThatChange:
    @pytest.mark.parametrize(
        ("then", "message"),
        [
            (wide, r"returned torch.float64 .* and torch.float32 when it was checked"),
            (column, r"returned shape \(32, 1\) for z of shape \(32, 2\)"),
            (total, r"returned shape \(\) for z"),
            (lambda z: 1.0, r"returned 1\.0 for z"),
            (writing, r"wrote into z.*z\.clone\(\)"),
        ],
        ids=["dtype", "column", "sum", "float", "writes"],
    )
    def test_in_the_middle_of_a_fit(self, then: Callable[[Tensor], Tensor], message: str) -> None:
        with pytest.raises(TargetError, match=rf"{message}.*in step \d+; the last good") as caught:
            fit(Breaks(60, then))
        assert caught.value.guide is not None and isinstance(caught.value.__cause__, TargetError)

    def test_of_a_class_of_ones_own(self) -> None:
        """Targets that are no LogDensity are held to the same."""

        class Own(LogDensity):
            def log_prob(self, z: Tensor) -> Tensor:
                return breaks(z)

        breaks = Breaks(60, column)
        with pytest.raises(TargetError, match=r"returned shape \(32, 1\)"):
            NFVI("loc", seed=0).fit(Own(normal, 2), steps=90, n_mc=16, restarts=2)


def curve(z: Tensor) -> Tensor:
    return (
        -0.5 * z[..., 0].square()
        - 2 * (z[..., 1] - z[..., 0].square()).square()
        - 0.5 * z[..., 2:].square().sum(-1)
    )


class Counted(Breaks):
    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        return curve(z) if self.calls < self.call else self.then(z)


@pytest.fixture
def python_handles_sigint() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestAuto:
    def test_in_a_learned_rung(self) -> None:
        target, steps = Counted(10**9, raising), []

        def break_it(state) -> None:  # type: ignore[no-untyped-def]
            steps.append(state.step)
            target.call = 0 if len(steps) == 20 else target.call

        with pytest.raises(FitError, match=r"ConnectionError: the server is gone") as caught:
            NFVI("auto", seed=1).fit(target, dim=6, callbacks=[break_it], compile=False)
        assert isinstance(caught.value.__cause__, ConnectionError) and len(steps) == 20
        assert re.search(r"error\.guide is the best of [2-4], \d × tril", str(caught.value))
        assert caught.value.guide.sample(3).shape == (3, 6)

    def test_while_modes_are_looked_for(self) -> None:
        target, plain = Counted(10**9, raising), {"dim": 5, "compile": False}
        whole = NFVI("auto", seed=1, dtype=torch.float64)
        gaussians = whole.fit(target, budget=Budget(steps=1), **plain).path[1].batched_evaluations
        with pytest.raises(FitError, match=r"error\.guide is the best of [12], ") as caught:
            whole.fit(Counted(gaussians + 30, raising), **plain)
        assert caught.value.guide.dim == 5

    def test_in_the_first_gaussian(self) -> None:
        with pytest.raises(FitError, match="there was no guide yet") as caught:
            NFVI("auto", seed=1).fit(Counted(40, raising), dim=5)
        assert caught.value.guide is None and isinstance(caught.value.__cause__, ConnectionError)

    def test_a_target_that_changes(self) -> None:
        with pytest.raises(TargetError, match=r"broken off by its target. .* returned shape"):
            NFVI("auto", seed=1).fit(Counted(40, column), dim=5)

    def test_ctrl_c_in_the_first_gaussian_gives_the_best_so_far(
        self, python_handles_sigint: None
    ) -> None:
        target = Counted(25, lambda z: (os.kill(os.getpid(), signal.SIGINT), curve(z))[1])

        def once(z: Tensor) -> Tensor:
            target.then = curve
            os.kill(os.getpid(), signal.SIGINT)
            return curve(z)

        target.then = once
        stopped = NFVI("auto", seed=1).fit(target, dim=5)
        assert stopped.stopped == "interrupted" and 1 <= len(stopped.path) <= 2
        assert stopped.path[0].steps == 0 and stopped.steps == 0
        assert stopped.sample(4).isfinite().all()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_second_ctrl_c_there_raises(self, python_handles_sigint: None) -> None:
        def press(z: Tensor) -> Tensor:
            os.kill(os.getpid(), signal.SIGINT)
            return curve(z)

        with pytest.raises(KeyboardInterrupt):
            NFVI("auto", seed=1).fit(Counted(25, press), dim=5)
