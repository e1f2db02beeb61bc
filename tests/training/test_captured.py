"""Steps in chunks of a branch-free step: the same fits to the last bit, and eager where it fails.

On the CPU the "graph" is the step itself, called again; on a card it is a graph.
"""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nfvi import (
    NFVI,
    Callback,
    CheckElboConvergence,
    Checkpoint,
    Fit,
    FitError,
    GradientTracker,
    ProgressBar,
    RowsTarget,
    Stop,
    Tracker,
)
from nfvi.density import data_setup
from nfvi.tracing import trace
from nfvi.training import captured as module
from nfvi.training import chunks, setup
from nfvi.training.branch_free import BranchFreeStep
from nfvi.training.calls import next_look
from nfvi.training.captured import CapturedSteps
from nfvi.training.compiled_step import compiled_step
from nfvi.training.controls import Plateau, plateau
from nfvi.training.device_history import ChunkTables
from nfvi.training.step import TracedStep

STEPS = 40
Make = Callable[..., TracedStep]


def direct(
    function: Callable[[], None], device: torch.device, generator: torch.Generator | None = None
) -> Callable[[], None]:
    """A graph that is the step itself, warmed up like one."""
    for _ in range(3):
        function()
    return function


def replayed(compile: Any, steps: int, device: torch.device, otherwise: Any) -> TracedStep:
    reason = next((reason for reason, holds in otherwise.items() if holds), None)
    return CapturedSteps("compile=False" if compile is False else reason, compile, direct)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of CUDA here, with a look at them every 15 steps."""
    monkeypatch.setattr(setup, "stepper", replayed)
    monkeypatch.setattr(data_setup, "stepper", replayed)
    monkeypatch.setattr(module, "LOOK_AGAIN", 15)


def normal(z: Tensor) -> Tensor:
    return -0.5 * ((z - 1) ** 2).sum(-1)


def holey(z: Tensor) -> Tensor:
    """A target with no density at some draws."""
    return torch.where(z[:, 0] > 2.5, torch.nan, normal(z))


def fit(formula: str = "planar*2", target: Any = normal, **options: Any) -> Fit:
    arguments = {"restarts": 4, "n_mc": 8, "steps": STEPS, "progress": False, "dim": 2, **options}
    return NFVI(formula, seed=0).fit(target, **arguments)


def assert_equal(found: Any, eager: Any, how: str = "captured") -> None:
    assert found.settings["evaluation"] == how
    assert eager.settings["evaluation"] == "eager: compile=False"
    mine, other = found._trainer, eager._trainer
    assert same(mine.history.state_dict(), other.history.state_dict())
    assert same(mine.guard.state_dict(), other.guard.state_dict())
    assert same(
        mine.optimizer.state[mine.ensemble.flat], other.optimizer.state[other.ensemble.flat]
    )
    assert torch.equal(mine.ensemble.flat, other.ensemble.flat)
    assert torch.equal(mine.last_good, other.last_good)
    assert torch.equal(mine.gradient, other.gradient)
    assert torch.equal(mine.generator.get_state(), other.generator.get_state())
    assert mine.gradient_evaluations == other.gradient_evaluations
    assert mine.batched_evaluations == other.batched_evaluations


def same(values: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return values.keys() == others.keys() and all(
        torch.equal(value.nan_to_num(), others[name].nan_to_num())
        and torch.equal(value.isnan(), others[name].isnan())
        for name, value in values.items()
    )


class TestNumbers:
    @pytest.mark.parametrize("restarts", [1, 4])
    @pytest.mark.parametrize("formula", ["planar*2", "monotone(hidden=[5])", "scale-hh-loc", "nsf"])
    def test_formulas(self, formula: str, restarts: int) -> None:
        found, eager = (fit(formula, restarts=restarts, compile=c) for c in ("trace", False))
        assert_equal(found, eager)

    @pytest.mark.parametrize("restarts", [1, 4])
    def test_draws_without_a_density(self, restarts: int) -> None:
        """Some restarts skip a step that others take; their parameters and Adam stay."""
        options = {"target": holey, "restarts": restarts, "lr": 0.1}
        found, eager = (fit(**options, compile=c) for c in ("trace", False))
        assert_equal(found, eager)
        skipped = found._trainer.guard.skipped
        assert 0 < int(skipped.sum()) < STEPS * restarts

    def test_a_step_out_of_the_range_of_floats(self) -> None:
        """It is taken back, and the optimiser begins anew."""
        options = {"formula": "loc", "restarts": 2, "lr": 2e38, "steps": 20, "anneal": False}
        flat = lambda z: -z.abs().sum(-1).clamp(max=1e3)  # noqa: E731
        found, eager = (fit(target=flat, **options, compile=c) for c in ("trace", False))
        assert_equal(found, eager)
        assert int(found._trainer.guard.skipped.sum()) > 0

    @pytest.mark.parametrize(
        "options",
        [
            {"draws": "qmc"},
            {"gradient": "total"},
            {"anneal": 0.5},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_options(self, options: dict[str, Any]) -> None:
        found, eager = (fit(**options, compile=c) for c in ("trace", False))
        assert_equal(found, eager)

    def test_steps_that_end_by_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The control that ends them looks at the same steps."""
        monkeypatch.setattr(plateau, "FLOOR", 40)
        monkeypatch.setattr(setup, "Plateau", lambda: Plateau(1e9, 40))
        options = {"steps": "auto", "restarts": 2, "formula": "loc", "anneal": False}
        found, eager = (fit(**options, compile=c) for c in ("trace", False))
        assert found.stopped == eager.stopped == "converged"
        assert_equal(found, eager)

    def test_float64(self) -> None:
        found, eager = (
            NFVI("planar*2", seed=0, dtype=torch.float64).fit(
                normal, dim=2, restarts=4, n_mc=8, steps=STEPS, progress=False, compile=c
            )
            for c in ("trace", False)
        )
        assert_equal(found, eager)

    def test_rows_of_data(self) -> None:
        x = np.random.default_rng(0).normal(size=(70, 2))
        found, eager = (
            NFVI("maf(hidden=[5])", seed=0).fit_data(
                x, batch_size=16, epochs=8, progress=False, compile=c
            )
            for c in ("trace", False)
        )
        for each in (found, eager):
            each._trainer = each._running.trainer
        assert_equal(found, eager)
        assert torch.equal(found.sample(5, seed=0), eager.sample(5, seed=0))

    def test_minibatches_of_a_target(self) -> None:
        x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
        target = RowsTarget(
            normal, lambda z, row: -((z - row) ** 2).sum(-1), x, dim=2, batch_size=9
        )
        found, eager = (fit(target=target, restarts=1, compile=c) for c in ("trace", False))
        assert_equal(found, eager)

    def test_refine(self) -> None:
        found, eager = (fit(compile=c) for c in ("trace", False))
        assert_equal(found.refine(20), eager.refine(20))


class TestEnds:
    def test_all_restarts_dropped(self) -> None:
        """The error is that of the very step, wherever in a chunk it was."""
        said, guides = [], []
        for compile in ("trace", False):
            with pytest.raises(FitError, match="every restart was dropped at step") as error:
                fit("loc", cliff, restarts=2, steps=250, lr=1.0, compile=compile)
            said.append(str(error.value))
            guides.append(error.value.guide)
        assert said[0] == said[1]
        first, second = (guide.state_dict() for guide in guides)
        assert same(first, second)

    def test_ctrl_c_ends_with_the_chunk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def pressing(z: Tensor) -> Tensor:
            pressing.calls += 1
            if pressing.calls == 30:
                os.kill(os.getpid(), signal.SIGINT)
            return normal(z)

        pressing.calls = 0
        monkeypatch.setattr(chunks, "FIRST", 5)
        monkeypatch.setattr(chunks, "LONGEST", 0.0)
        found = fit(target=pressing, steps=200)
        assert found.stopped == "interrupted"
        steps = found._trainer.step
        assert 1 < steps < 200 and len(found.history.elbo) == steps
        eager = fit(steps=200, compile=False, callbacks=[until(steps)])
        assert torch.equal(found.history.loss, eager.history.loss)

    def test_resume(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        whole = fit(callbacks=[Checkpoint(tmp_path / "last", every=7), Keep(tmp_path)])
        for compile in ("trace", False):
            found = NFVI.resume(path).fit(normal, dim=2, compile=compile, progress=False)
            assert torch.equal(found.history.loss, whole.history.loss)
            assert torch.equal(found._trainer.ensemble.flat, whole._trainer.ensemble.flat)


class Keep(Callback):
    """Keeps the file that a fit would have left, had it been ended in step 22."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def next_look(self, step: int) -> int:
        return 22 if step < 22 else 10**9

    def __call__(self, state: Any) -> None:
        if state.step == 22:
            shutil.copy(self.folder / "last", self.folder / "run")


def until(step: int) -> Callable[..., Any]:
    return lambda state: Stop("enough") if state.step == step else None


def cliff(z: Tensor) -> Tensor:
    """A slope up to where there is no density: every restart is dropped sooner or later."""
    return torch.where(z[:, 0] > 6, torch.nan, 3 * z[:, 0] - z[:, 1].square())


class TestLooks:
    def lengths(self, monkeypatch: pytest.MonkeyPatch, callbacks: list[Any]) -> list[int]:
        """After how many steps the host looked, without the steps that are done in both ways."""
        seen: list[int] = []
        run = chunks.Chunks.run

        def counted(self: Any, loop: Any, most: int) -> int:
            done = run(self, loop, most)
            seen.append(loop.step)
            return done

        monkeypatch.setattr(chunks.Chunks, "run", counted)
        fit(callbacks=callbacks)
        return seen

    def test_a_function_sees_every_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        steps: list[int] = []
        self.lengths(monkeypatch, [lambda state: steps.append(state.step)])
        assert steps == [*range(1, STEPS + 1)]

    def test_a_tracker_sees_what_it_would_see_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trackers = [
            Tracker(every=5, u=lambda s: s.parameters["u_0"], g=lambda s: s.gradients["w_1"])
            for _ in range(2)
        ]
        seen = self.lengths(monkeypatch, [trackers[0]])
        fit(callbacks=[trackers[1]], compile=False)
        assert max(b - a for a, b in pairwise(seen)) > 1
        assert same(trackers[0].state_dict(), trackers[1].state_dict())

    @pytest.mark.parametrize(
        "callback", [ProgressBar(4), CheckElboConvergence(every=4), Checkpoint("x", every=4)]
    )
    def test_every(self, callback: Any) -> None:
        assert [callback.next_look(step) for step in (0, 3, 4)] == [4, 4, 8]

    @pytest.mark.parametrize("answer", [3, 2, "soon", None])
    def test_a_look_that_is_not_ahead(self, answer: Any) -> None:
        class Stuck(Callback):
            def next_look(self, step: int) -> int:
                return answer  # type: ignore[no-any-return]

            def __call__(self, state: Any) -> None:
                pass

        with pytest.raises(ValueError, match=r"next_look\(3\) of Stuck must be a whole"):
            next_look(Stuck(), 3)

    def test_a_bar_counts_all_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bar = ProgressBar(10)
        counts: list[int] = []

        def opened(self: Any, state: Any) -> None:
            type(self).shown = 0
            self._bar = self
            self._shown = 0

        monkeypatch.setattr(ProgressBar, "open", opened)
        monkeypatch.setattr(ProgressBar, "update", counts.append, raising=False)
        monkeypatch.setattr(ProgressBar, "close", lambda self, state: None)
        monkeypatch.setattr(ProgressBar, "set_postfix", lambda *a, **k: None, raising=False)
        bar.update = counts.append  # type: ignore[attr-defined]
        fit(callbacks=[bar])
        assert sum(counts) == STEPS and len(counts) < STEPS

    def test_chunks_are_as_long_as_time_allows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "LONGEST", 0.0)
        assert self.lengths(monkeypatch, [])[:3] == [9, 10, 11]

    def test_chunks_grow_up_to_the_next_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The looks in both ways are at steps 1, 16 and 31."""
        monkeypatch.setattr(chunks, "LONGEST", 1e9)
        assert self.lengths(monkeypatch, []) == [9, 15, 30, 40]


class TestEager:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"anneal": "adaptive"}, 'anneal="adaptive"'),
            ({"n_mc": "auto"}, 'n_mc="auto" changes the number of draws'),
            ({"prune": True}, "prune=True changes the number of restarts"),
            (
                {"optimizer": torch.optim.LBFGS, "restarts": 1, "steps": 3},
                "an optimizer other than the default Adam",
            ),
            ({"optimizer": torch.optim.Adam}, "an optimizer other than the default Adam"),
            (
                {"callbacks": [GradientTracker()]},
                "a callback wants the gradients of groups of draws",
            ),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_by_the_arguments(self, options: dict[str, Any], reason: str) -> None:
        assert fit(**options).settings["evaluation"] == f"eager: {reason}"

    def test_without_a_graph(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A capture that raises leaves the same fit, and says why."""

        def broken(function: Any, *_: Any) -> Any:
            function()
            raise RuntimeError("no graph today\nwith more words")

        monkeypatch.setattr(setup, "stepper", lambda *a: CapturedSteps(None, capture=broken))
        found = fit()
        monkeypatch.setattr(setup, "stepper", replayed)
        eager = fit(compile=False)
        why = "(RuntimeError: no graph today)"
        assert found.settings["evaluation"] == (
            f"eager: not captured {why}, not traced and captured {why}"
        )
        assert torch.equal(found.history.loss, eager.history.loss)
        assert torch.equal(found._trainer.ensemble.flat, eager._trainer.ensemble.flat)
        assert found.gradient_evaluations == eager.gradient_evaluations

    @pytest.mark.parametrize("at", [1, 12, 20])
    def test_a_replay_that_breaks(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        """The fit goes on from before the chunk, with the same draws."""

        def fragile(function: Any, *_: Any) -> Any:
            calls = iter(range(1, 10**9))

            def replay() -> None:
                function()
                if next(calls) == at:
                    raise RuntimeError("the card fell off")

            return replay

        monkeypatch.setattr(setup, "stepper", lambda *a: CapturedSteps(None, capture=fragile))
        found = fit()
        monkeypatch.setattr(setup, "stepper", replayed)
        eager = fit(compile=False)
        assert found.settings["evaluation"] == "eager: RuntimeError: the card fell off"
        assert torch.equal(found.history.loss, eager.history.loss)
        assert torch.equal(found._trainer.ensemble.flat, eager._trainer.ensemble.flat)
        assert torch.equal(
            found._trainer.generator.get_state(), eager._trainer.generator.get_state()
        )

    def test_a_graph_that_gives_other_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        call = BranchFreeStep.__call__

        def wrong(step: BranchFreeStep) -> None:
            call(step)
            step.memory.flat.detach().mul_(1.001)

        monkeypatch.setattr(BranchFreeStep, "__call__", wrong)
        found = fit()
        monkeypatch.setattr(setup, "stepper", replayed)
        assert found.settings["evaluation"] == (
            "eager: at step 1 the captured step gave other numbers"
        )
        assert torch.equal(found.history.loss, fit(compile=False).history.loss)

    def test_a_target_that_changes_on_the_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A graph keeps the numbers of Python that it was captured with; a look tells."""
        shift = [1.0]

        def frozen(function: Any, *_: Any) -> Any:
            kept = shift[0]

            def replay() -> None:
                now, shift[0] = shift[0], kept
                function()
                shift[0] = now

            return replay

        def change(state: Any) -> None:
            shift[0] = 2.0 if state.step >= 10 else 1.0

        monkeypatch.setattr(setup, "stepper", lambda *a: CapturedSteps(None, capture=frozen))
        found = fit(target=lambda z: normal(z) * shift[0], callbacks=[change], anneal=False)
        assert found.settings["evaluation"] == (
            "eager: at step 16 the captured step gave other numbers"
        )

    def test_only_the_traced_graph_can_be_captured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        attempts: list[Any] = []

        def third(function: Any, *arguments: Any) -> Any:
            attempts.append(function)
            if len(attempts) < 3:  # with the draws in the graph, and without
                raise RuntimeError("Cannot copy between CPU and CUDA tensors")
            return direct(function, *arguments)

        monkeypatch.setattr(setup, "stepper", lambda *a: CapturedSteps(None, capture=third))
        found = fit()
        monkeypatch.setattr(setup, "stepper", replayed)
        assert_equal(found, fit(compile=False), "traced and captured")

    def test_draws_that_cannot_be_captured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are made before each replay."""
        sources: list[Any] = []

        def without_draws(function: Any, device: Any, source: Any) -> Any:
            sources.append(source)
            if source is not None:
                raise RuntimeError("this generator cannot be captured")
            return direct(function, device)

        monkeypatch.setattr(setup, "stepper", lambda *a: CapturedSteps(None, capture=without_draws))
        found = fit()
        monkeypatch.setattr(setup, "stepper", replayed)
        assert_equal(found, fit(compile=False))
        assert isinstance(sources[0], torch.Generator) and sources[1:] == [None]


class _NoReads(TorchDispatchMode):
    """Fails where a number goes to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a number is read by the host"
        assert "is_nonzero" not in str(func)
        return func(*args, **(kwargs or {}))


class TestBranchFree:
    @pytest.mark.parametrize("target", [normal, holey])
    def test_nothing_is_read_by_the_host(self, target: Any) -> None:
        steps: list[Any] = []

        def watched(function: Any, *_: Any) -> Any:
            def replay() -> None:
                with _NoReads():
                    function()
                steps.append(1)

            return replay

        trainer = fit(target=target, compile=False)._trainer
        trainer.traced = CapturedSteps(None, capture=watched)
        trainer.run(steps=20)
        assert trainer.settings["evaluation"] == "captured" and len(steps) >= 20

    def test_the_counter_stays_in_its_tables(self) -> None:
        like = torch.zeros(2, 3)
        tables = ChunkTables(4, 5, like, torch.float32)
        with pytest.raises(ValueError, match="5 steps in tables of 4 rows"):
            tables.fill([0.1] * 5, torch.ones(5, 2))
        tables.fill([0.1, 0.2], torch.tensor([[0.5, 1.0], [0.6, 1.0]]))
        for k in range(9):
            tables.write(torch.full((5, 2), float(k)), torch.tensor(k < 1))
            assert int(tables.at) == min(k + 1, 3)
        assert tables.record(2)[:, 0, 0].tolist() == [0.0, 1.0]
        assert tables.done(1) == 1 and tables.done(3) == 2

    def test_a_graph_is_left_out_of_a_pickle(self) -> None:
        found = fit()
        again = pickle.loads(pickle.dumps(CapturedSteps("here")))
        assert again.text == "eager: here" and found._trainer.traced._chunks is None


COMPILERS = [
    "none",
    pytest.param(
        "inductor",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
        ],
    ),
]


def uncompiled(recording: Any, inputs: Any) -> Callable[..., Any]:
    """What a compiler would make code of, as it is."""
    return torch.no_grad()(recording.code())


class TestCompiled:
    """The whole step as one piece of code, equal to rounding."""

    @pytest.fixture(autouse=True, params=COMPILERS)
    def compiler(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "none":
            monkeypatch.setattr(trace, "inductor", uncompiled)

    @pytest.mark.parametrize("options", [{}, {"target": holey, "lr": 0.1}, {"restarts": 1}])
    def test_it_does_what_the_plain_step_does(self, options: dict[str, Any]) -> None:
        found, plain = (fit(**options, compile=c) for c in ("inductor", False))
        assert found.settings["evaluation"] == "compiled and captured"
        mine, other = found._trainer, plain._trainer
        near = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
        for name, value in mine.history.state_dict().items():
            torch.testing.assert_close(value, other.history.state_dict()[name], **near)
        torch.testing.assert_close(mine.ensemble.flat, other.ensemble.flat, **near)
        torch.testing.assert_close(mine.last_good, other.last_good, **near)
        for name in ("alive", "skipped", "in_a_row"):
            assert torch.equal(getattr(mine.guard, name), getattr(other.guard, name))

    def test_other_numbers_are_not_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written_out = BranchFreeStep._update_written_out

        def slower(step: BranchFreeStep, good: Tensor, lr: Tensor) -> None:
            written_out(step, good, 0.5 * lr)

        attempts: list[Any] = []

        def counted(*arguments: Any) -> Any:
            attempts.append(arguments)
            return compiled_step(*arguments)

        monkeypatch.setattr(chunks, "compiled_step", counted)
        monkeypatch.setattr(BranchFreeStep, "_update_written_out", slower)
        found, plain = (fit(compile=c) for c in ("inductor", False))
        why = "not compiled (TraceError: the compiled step gives other numbers)"
        assert_equal(found, plain, f"captured: {why}")
        assert len(attempts) == 1


@pytest.mark.cuda
class TestOnACard:
    """The graphs themselves."""

    @pytest.fixture(autouse=True)
    def as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(setup, "stepper", module.stepper)
        monkeypatch.setattr(data_setup, "stepper", module.stepper)

    def fit(self, formula: str, target: Any = normal, **options: Any) -> Fit:
        arguments = {"restarts": 4, "n_mc": 64, "steps": 120, "progress": False, **options}
        return NFVI(formula, seed=0, device="cuda").fit(target, dim=2, **arguments)

    @pytest.mark.parametrize("restarts", [1, 4])
    @pytest.mark.parametrize("gradient", ["path", "total"])
    @pytest.mark.parametrize("formula", ["planar*8", "realnvp*2", "nsf*2", "monotone*2", "bnaf"])
    def test_bit_for_bit(self, formula: str, gradient: str, restarts: int) -> None:
        options = {"restarts": restarts, "gradient": gradient}
        assert_equal(*(self.fit(formula, **options, compile=c) for c in ("trace", False)))

    def test_draws_without_a_density(self) -> None:
        options = {"target": holey, "lr": 0.1}
        assert_equal(*(self.fit("planar*2", **options, compile=c) for c in ("trace", False)))

    @pytest.mark.parametrize("base", ["laplace", "studentt(df=5)"])
    def test_bases(self, base: str) -> None:
        found, eager = (
            NFVI("planar*2", seed=0, base=base, device="cuda").fit(
                normal, dim=2, steps=120, progress=False, compile=c
            )
            for c in ("trace", False)
        )
        assert_equal(found, eager)

    def test_a_constant_of_the_host(self) -> None:
        """It cannot be copied in a capture; the traced graph holds it on the device."""
        shift = torch.tensor([1.0, 2.0])

        def target(z: Tensor) -> Tensor:
            return normal(z - shift.to(z))

        found, eager = (self.fit("planar*2", target, compile=c) for c in ("trace", False))
        assert_equal(found, eager, "traced and captured")

    def test_a_step_that_reads_numbers(self) -> None:
        def target(z: Tensor) -> Tensor:
            return normal(z) * (1.0 if float(z.detach().sum()) < 1e9 else 2.0)

        found = self.fit("planar*2", target)
        assert found.settings["evaluation"].startswith("eager: not captured (")

    def test_resume(self, tmp_path: Path) -> None:
        watch = [Checkpoint(tmp_path / "last", every=7), Keep(tmp_path)]
        whole = self.fit("planar*4", callbacks=watch)
        resumed = NFVI.resume(tmp_path / "run", device="cuda")
        found = resumed.fit(normal, dim=2, progress=False)
        assert torch.equal(found.history.loss, whole.history.loss)
        assert torch.equal(found._trainer.ensemble.flat, whole._trainer.ensemble.flat)

    def test_threads(self) -> None:
        """What one does on the card while another captures is no error."""
        with ThreadPoolExecutor(3) as pool:
            losses = [*pool.map(lambda _: self.fit("planar*4").history.loss, range(3))]
        alone = self.fit("planar*4")
        assert alone.settings["evaluation"] == "captured"
        assert all(torch.equal(loss, alone.history.loss) for loss in losses)

    def test_memory_is_given_back(self) -> None:
        held = []
        for _ in range(3):
            self.fit("planar*4")
            gc.collect()
            held.append(torch.cuda.memory_allocated())
        assert held[0] == held[1] == held[2]

    @pytest.mark.parametrize(("formula", "dim"), [("scale-loc", 10**6), ("scale-hh*10-loc", 10**5)])
    def test_many_dimensions_within_two_gibibytes(self, formula: str, dim: int) -> None:
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        found = NFVI(formula, seed=0, device="cuda").fit(
            normal, dim=dim, n_mc=64, steps=50, restarts=1, progress=False
        )
        assert found.settings["evaluation"] == "captured" and found.verdict
        assert torch.cuda.max_memory_allocated() - before < 2 * 2**30

    def test_rows_of_data(self) -> None:
        x = np.random.default_rng(0).normal(size=(500, 2))
        found = NFVI("maf(hidden=[8])", seed=0, device="cuda").fit_data(
            x, batch_size=64, epochs=20, progress=False
        )
        assert found.settings["evaluation"] == "captured"

    def test_compiled(self) -> None:
        found = self.fit("planar*2", compile="inductor", steps=100)
        plain = self.fit("planar*2", compile=False, steps=100)
        assert found.settings["evaluation"] == "compiled and captured"
        torch.testing.assert_close(found.history.loss, plain.history.loss, rtol=1e-2, atol=1e-2)
