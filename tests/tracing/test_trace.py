"""Functions as graphs: the same numbers to the last bit, or a reason why not."""

from __future__ import annotations

import shutil
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from nfvi.tracing import TraceError, compiled_in_place, traced
from nfvi.tracing import runners as runners_module
from nfvi.tracing.passes import clean
from nfvi.tracing.record import recorded
from nfvi.tracing.trace import same
from nfvi.utils import unvalidated

LinAlgError = torch.linalg.LinAlgError


def points(*shape: int, n: int = 2) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(*shape, generator=generator),) for _ in range(n)]


def graph(function, *inputs: Tensor) -> torch.fx.GraphModule:
    module = recorded(function, inputs)
    clean(module)
    return module.code()


def targets(module: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def value_and_gradient(x: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = torch.vmap(lambda row: (row.sin() * row.exp()).logsumexp(0))(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def in_place(x: Tensor) -> tuple[Tensor, ...]:
    whole = torch.zeros(4, 3)
    rows = whole[1:3]
    before = x + whole.sum()
    rows.copy_(x)
    rows[0].mul_(2.0)
    after = x + whole.sum()
    return whole, before, after


def constants(x: Tensor) -> tuple[Tensor, ...]:
    scale = torch.arange(3.0).exp().unsqueeze(0).expand(2, 3)
    return (x * scale, x @ torch.eye(3), x - 0.0, x - -0.0, x * 1, x * 1.0)


def numbers(x: Tensor) -> tuple[Tensor, ...]:
    """A number beside a tensor of its dtype, of another, and of no dimension."""
    whole, alone = (x > 0).long(), x.double().sum()
    return (x * 0.1, x / 3, x + 1, x - 0.7, 2 * x, 1 - x, whole * 2, whole * 0.5, alone * 0.1)


def many_kinds_of_arguments(x: Tensor) -> tuple[Tensor, ...]:
    whole = x.new_zeros((2, 0), dtype=torch.float64).to(x.device, torch.float32)
    first, second = x.split([1, 2], dim=1)
    rows = torch.stack([x, x.clone(memory_format=torch.contiguous_format)])
    return (
        torch.cat([whole, first, second], 1),
        x.amax(1, keepdim=True),
        x.max(1).values,
        x.max(1).indices,
        rows[:, torch.tensor([1, 0])],
        x.clamp(min=0.1),
        torch.add(x, x, alpha=3),
        x.pow(2),
        torch.where(x > 0, x, -torch.inf),
        x.unbind(0)[1],
        torch.full_like(x, torch.nan),
        x.sum((), keepdim=True),
    )


def factor(x: Tensor) -> tuple[Tensor, ...]:
    return (torch.linalg.cholesky(torch.eye(3) * x[0, 0]),)


class TestNumbers:
    @pytest.mark.parametrize(
        "function", [value_and_gradient, in_place, constants, numbers, many_kinds_of_arguments]
    )
    @pytest.mark.parametrize("scripted", [True, False])
    def test_equal_to_the_function_to_the_last_bit(self, function, scripted, monkeypatch) -> None:
        monkeypatch.setattr(runners_module, "SCRIPTED", scripted)
        run = traced(function, points(2, 3))
        for inputs in points(2, 3, n=5):
            assert same(run(*inputs), function(*inputs))

    @pytest.mark.parametrize("function", [value_and_gradient, constants, many_kinds_of_arguments])
    def test_every_way_to_run_a_graph_gives_the_same(self, function) -> None:
        [inputs] = points(2, 3, n=1)
        recording = recorded(function, inputs)
        clean(recording)
        ways = list(runners_module.runners(recording, inputs))
        assert len(ways) == (3 if runners_module.SCRIPTED else 1)
        assert all(same(run(*inputs), function(*inputs)) for run in ways)

    def test_a_way_that_fails_is_passed_over(self, monkeypatch) -> None:
        def fail(module):
            raise AttributeError("not in this version")

        monkeypatch.setattr(runners_module, "scripted", fail)
        run = traced(constants, points(2, 3))
        assert same(run(*points(2, 3)[0]), constants(*points(2, 3)[0]))

    def test_what_is_not_finite(self) -> None:
        run = traced(value_and_gradient, points(2, 3))
        for value in (torch.nan, torch.inf, -torch.inf):
            assert same(
                run(torch.full((2, 3), value)), value_and_gradient(torch.full((2, 3), value))
            )

    def test_needs_no_autograd(self) -> None:
        run = traced(value_and_gradient, points(2, 3))
        assert not any(value.requires_grad for value in run(torch.ones(2, 3, requires_grad=True)))

    @pytest.mark.parametrize("scripted", [True, False])
    def test_a_factorisation_that_fails(self, scripted, monkeypatch) -> None:
        """TorchScript drops the check, as it returns nothing."""
        monkeypatch.setattr(runners_module, "SCRIPTED", scripted)
        run = traced(factor, [(torch.full((1, 1), 2.0),)])
        assert torch.equal(run(torch.full((1, 1), 4.0))[0], 2 * torch.eye(3))
        with pytest.raises(LinAlgError):
            run(-torch.ones(1, 1))

    def test_a_runner_that_rounds_otherwise_is_passed_over(self, monkeypatch) -> None:
        def rounding(module, inputs):
            yield lambda *x: tuple(value * (1 + 1e-6) for value in module(*x))

        monkeypatch.setattr("nfvi.tracing.trace.runners", rounding)
        with pytest.raises(TraceError, match="other numbers"):
            traced(value_and_gradient, points(2, 3))


class TestCourse:
    """What is no course that depends on values."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: (x * torch.arange(3.0).max().item(),),
            lambda x: (x * float(np.asarray(torch.arange(3.0)).max()),),
            lambda x: (x[:, torch.tensor([True, False, True]).nonzero()[:, 0]],),
            lambda x: (x[torch.tensor([1, 0])],),
            lambda x: (torch.tensor([1.0, 2.0, 3.0]).mul_(x[0]),),
        ],
    )
    def test_a_graph_all_the_same(self, function) -> None:
        run = traced(function, points(2, 3))
        for inputs in points(2, 3, n=4):
            assert same(run(*inputs), function(*inputs))


class TestPasses:
    def test_equal_operations_are_one(self) -> None:
        module = graph(lambda x: (x.exp() + x.exp() * x.exp(),), torch.ones(3))
        assert targets(module).count("aten.exp.default") == 1

    def test_what_nobody_asks_for_is_gone(self) -> None:
        def function(x: Tensor) -> tuple[Tensor]:
            x.sin()
            return (x.detach().cos(),)

        assert targets(graph(function, torch.ones(3))) == ["aten.cos.default"]

    def test_constants_are_computed_once_and_their_views_stay_views(self) -> None:
        module = graph(constants, torch.ones(2, 3))
        assert not {"aten.exp.default", "aten.arange.default"} & set(targets(module))
        assert "aten.expand.default" in targets(module)
        assert max(b.numel() for b in module.buffers()) <= 9

    def test_zeros_of_either_sign_and_numbers_of_either_type_are_told_apart(self) -> None:
        module = graph(lambda x: (x * 0.0, x * -0.0, x * 0), torch.ones(2, 3))
        assert targets(module).count("aten.mul.Tensor") == 3

    def test_zeros_of_the_shape_of_something_are_a_constant(self) -> None:
        module = graph(lambda x: (torch.cat([torch.zeros_like(x), x.exp()]),), torch.ones(3))
        assert targets(module) == ["aten.exp.default", "aten.cat.default"]

    def test_zeros_that_are_written_to_or_given_back_are_made_each_time(self) -> None:
        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            filled = torch.zeros_like(x)
            filled[0] += x[1]
            return torch.ones_like(x), filled

        names = targets(graph(function, torch.ones(3)))
        assert {"aten.zeros_like.default", "aten.ones_like.default"} <= set(names)
        run = traced(function, points(3))
        first, _ = run(torch.ones(3))
        first.zero_()
        assert same(run(torch.ones(3)), function(torch.ones(3)))

    def test_writes_are_left_in_their_place(self) -> None:
        names = targets(graph(in_place, torch.ones(2, 3)))
        assert "aten.copy_.default" in names and "aten.mul_.Tensor" in names
        assert names.count("aten.sum.default") == 2

    def test_what_a_write_only_reads_is_a_constant_all_the_same(self) -> None:
        """As the outcomes of a logistic regression: a copy of them at each step is no graph's."""
        kept = torch.ones(3, dtype=torch.float64)

        def function(x: Tensor) -> tuple[Tensor, ...]:
            return (torch.zeros_like(x).sub_(kept.to(x)) * x,)

        module = graph(function, torch.ones(3))
        assert "aten._to_copy.default" not in targets(module)
        assert "aten.sub_.Tensor" in targets(module)
        traced(function, points(3))

    def test_distributions_must_not_look_at_their_values(self) -> None:
        def function(x: Tensor) -> tuple[Tensor, ...]:
            return (torch.distributions.Normal(x, x.exp()).log_prob(x),)

        with pytest.raises(TraceError, match="its course depends on values"):
            traced(function, points(3))
        with unvalidated():
            graph = traced(function, points(3))
        (found,) = graph(torch.tensor([0.0, torch.nan, 1.0]))
        assert found.isnan().tolist() == [False, True, False]
        with pytest.raises(ValueError, match="scale"):
            torch.distributions.Normal(0.0, -1.0)

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
    def test_code_that_writes_into_its_inputs(self) -> None:
        def function(total: Tensor, x: Tensor) -> None:
            total.add_(x.sin())

        inputs = [torch.zeros(3), torch.ones(3)]
        run = compiled_in_place(function, inputs)
        inputs[0].zero_()
        run(inputs)
        run(inputs)
        torch.testing.assert_close(inputs[0], 2 * torch.ones(3).sin())
        with pytest.raises(TraceError, match="factorisation"):
            compiled_in_place(lambda x: x.copy_(torch.linalg.cholesky(x)), [torch.eye(2)])


class TestRefusals:
    @pytest.mark.parametrize(
        "function",
        [
            lambda x: (x + torch.randn(2, 3),),
            lambda x: (x[torch.randperm(2)],),
            lambda x: (torch.nn.functional.dropout(x, 0.5),),
        ],
    )
    def test_random_numbers(self, function) -> None:
        with torch.random.fork_rng(), pytest.raises(TraceError, match="random numbers"):
            traced(function, points(2, 3))

    def test_random_numbers_of_another_library(self) -> None:
        """They are frozen in the graph, and so found by the numbers."""
        rng = np.random.default_rng(0)
        with pytest.raises(TraceError, match="other numbers"):
            traced(lambda x: (x * float(rng.normal()),), points(2, 3))

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: (x if x.sum() > 0 else -x,),
            lambda x: (x[x > 0],),
            lambda x: (x * x.max().item(),),
            lambda x: (torch.from_numpy(np.exp(x.numpy())),),
            lambda x: (torch.tensor(np.exp(x)),),
            lambda x: (x if x.tolist()[0][0] > 0 else -x,),
            lambda x: (x if bool(x.new_zeros(2).copy_(x[:, 0])[0] > 0) else -x,),
        ],
    )
    def test_a_course_that_depends_on_values(self, function) -> None:
        with pytest.raises(TraceError, match=r"\w+: .+|depends on values") as caught:
            traced(function, points(2, 3))
        assert len(str(caught.value)) <= 200

    def test_an_error_that_the_function_makes_of_a_refusal(self) -> None:
        def function(x: Tensor) -> tuple[Tensor]:
            try:
                return (x if x.sum() > 0 else -x,)
            except RuntimeError as error:
                raise ValueError("something else") from error

        with pytest.raises(TraceError, match="depends on values"):
            traced(function, points(2, 3))

    def test_a_tensor_that_is_kept_and_written_to(self) -> None:
        kept = torch.zeros(2, 3)
        with pytest.raises(TraceError, match="it keeps"):
            traced(lambda x: (kept.copy_(x) + 1,), points(2, 3))

    def test_a_number_that_changes_between_calls(self) -> None:
        calls: list[int] = []

        def function(x: Tensor) -> tuple[Tensor]:
            calls.append(1)
            return (x * len(calls),)

        with pytest.raises(TraceError, match="other numbers"):
            traced(function, points(2, 3))

    def test_what_a_function_keeps_for_later_calls_is_kept_from_a_plain_call(self) -> None:
        kept: dict[int, Tensor] = {}

        def function(x: Tensor) -> tuple[Tensor]:
            if len(x) not in kept:
                kept[len(x)] = torch.arange(float(len(x)))
            return (x * kept[len(x)].unsqueeze(1),)

        traced(function, points(2, 3))
        assert type(kept[2]) is Tensor and kept[2].tolist() == [0.0, 1.0]


def test_no_warning_and_no_setting_is_left() -> None:
    before = torch.jit.optimized_execution, list(warnings.filters)
    flag = torch._C._get_graph_executor_optimize()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = traced(value_and_gradient, points(2, 3))
        run(*points(2, 3)[0])
    assert (torch.jit.optimized_execution, list(warnings.filters)) == before
    assert torch._C._get_graph_executor_optimize() == flag


def test_threads() -> None:
    """What one thread does is no part of what another one traces."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run = traced(value_and_gradient, points(2, 3))
            for inputs in points(2, 3, n=3):
                assert same(run(*inputs), value_and_gradient(*inputs))
        except BaseException as error:  # noqa: BLE001 (told to the thread of the test)
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
