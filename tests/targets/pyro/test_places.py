"""Models on a GPU: every tensor of a run is where the values are.

Without a card, torch's ``meta`` device stands for it: an operation on a tensor there and one of the
CPU is an error, as on a card.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.utils._python_dispatch import TorchDispatchMode

import models
from nfvi import NFVI, PyroTarget
from nfvi.targets.bijections import bijection, on_device
from nfvi.targets.pyro.places import device_of, made_on

ELSEWHERE = torch.device("meta")
ZOO = [
    models.eight_schools,
    models.eight_schools_noncentered,
    models.logistic_regression,
    models.linear_regression,
    models.hierarchical_correlation,
]


def bounded() -> None:
    """Bounds that are tensors, and numbers in distributions of several entries."""
    x = pyro.sample("x", dist.Uniform(torch.zeros(3), torch.arange(1.0, 4.0)).to_event(1))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.Normal(x, 0.5).mask(torch.tensor(True)), obs=torch.ones(3))
    pyro.deterministic("twice", 2 * x + torch.ones(3))


def summed_out() -> None:
    """A mixture, whose choices are enumerated."""
    weight = pyro.sample("weight", dist.Dirichlet(torch.ones(3)))
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with pyro.plate("rows", 4):
        k = pyro.sample("k", dist.Categorical(weight), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(mean[k], 1.0), obs=torch.arange(4.0))


def with_a_parameter() -> None:
    """A parameter that is not learned, and rows that are drawn once."""
    shift = pyro.param("shift", torch.tensor([1.0, 2.0]))
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    data = torch.arange(6.0)
    with pyro.plate("rows", 6, subsample_size=2) as index:
        pyro.sample("y", dist.Normal((x + shift).sum(), 1.0), obs=data[index])


OWN = [bounded, summed_out, with_a_parameter]
each = pytest.mark.parametrize("model", ZOO + OWN, ids=lambda model: model.__name__)
# torch's meta device knows no index by a mask, which the map of an LKJ site is made with.
without_masks = pytest.mark.parametrize(
    "model",
    [model for model in ZOO + OWN if model is not models.hierarchical_correlation],
    ids=lambda model: model.__name__,
)
everything = pytest.mark.filterwarnings("ignore:.*has parameters", "ignore:.*draws its own")


class _MadeThere(TorchDispatchMode):
    """Fails where an operation makes a tensor on the CPU, be it a number."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made = [x for x in torch.utils._pytree.tree_leaves(found) if isinstance(x, Tensor)]
        inputs = torch.utils._pytree.tree_leaves((args, kwargs))
        # What the model holds itself, as its data, may be on the CPU until it moves it.
        ours = all(x.device == ELSEWHERE for x in inputs if isinstance(x, Tensor))
        # A number of Python that vmap wraps in an operation goes to a kernel as a number.
        wrapped = "lift_fresh" in str(func) or "_to_copy" in str(func)
        wrong = [
            x for x in made if ours and x.device != ELSEWHERE and not (wrapped and not x.dim())
        ]
        assert not wrong, f"{func} made a tensor on {wrong[0].device}"
        return found


def points(target: PyroTarget, n: int) -> Tensor:
    return torch.empty(n, target.dim, device=ELSEWHERE)


@everything
@without_masks
def test_values_and_their_maps(model: Callable[[], None]) -> None:
    target = PyroTarget(model)
    with _MadeThere():
        z = points(target, 1)
        values = target._values(z)
        assert all(value.device == ELSEWHERE for value in values.values())
        assert target.on_edge(z).device == ELSEWHERE


@everything
@without_masks
def test_densities(model: Callable[[], None]) -> None:
    """By single runs and by vmap, as they run in a fit."""
    target = PyroTarget(model)
    target.check()
    with _MadeThere():
        values = target._values(points(target, 5))
        row = {name: value[0] for name, value in values.items()}
        assert target.program.log_joint(row).device == ELSEWHERE
        assert torch.func.vmap(target.program.log_joint)(values).device == ELSEWHERE


@everything
@without_masks
def test_predictions_and_likelihoods(model: Callable[[], None]) -> None:
    target = PyroTarget(model)
    with _MadeThere():
        values = {k: v[0] for k, v in target._values(points(target, 1)).items()}
        if model is not with_a_parameter:  # what is in a plate that subsamples has neither
            found = target.program.pointwise(values) | target.program.predict(
                values, everything=False
            )
            assert found and all(value.device == ELSEWHERE for value in found.values())
        found = target.program.deterministics(values)
        assert all(value.device == ELSEWHERE for value in found.values())


def test_what_is_held_fixed_moves_once_and_stays_out_of_files() -> None:
    program = PyroTarget(summed_out).program
    like = {"weight": torch.empty(3, device="meta")}
    moved = program._beside(like)
    assert moved is program._beside(like)
    assert moved.summation.choices["k"].device.type == "meta"  # type: ignore[union-attr]
    assert program._beside({"weight": torch.zeros(3)}) is program
    assert not program.__getstate__()["_moved"]


def test_bounds_move() -> None:
    low, high = torch.zeros(2), torch.tensor([1.0, 2.0])
    maps = [
        bijection(constraints.interval(low, high)),
        bijection(constraints.greater_than(low)),
        biject_to(constraints.independent(constraints.less_than(high), 1)),
    ]
    for transform in maps:
        assert transform is not None
        assert on_device(transform, torch.device("cpu")) is transform
        there = on_device(transform, torch.device("meta"))
        z = torch.empty(5, 2, device="meta")
        value = there(z)
        assert value.device.type == there.inv(value).device.type == "meta"
        assert there.log_abs_det_jacobian(z, value).device.type == "meta"
        assert transform(torch.zeros(2)).device.type == "cpu"
    again = pickle.loads(pickle.dumps(PyroTarget(bounded).sites["x"]))
    assert again.constrain(torch.zeros(1, 3))[0].device.type == "cpu"


class TestPlaces:
    def test_device_of(self) -> None:
        here, there = torch.zeros(2), torch.empty(2, device="meta")
        assert device_of(1, "a", None) is None
        assert device_of([here], {"x": (1, here)}) == torch.device("cpu")
        assert device_of(here, {"x": [there]}) == torch.device("meta")

    def test_made_on(self) -> None:
        for device, expected in ((None, "cpu"), (torch.device("cpu"), "cpu"), (ELSEWHERE, "meta")):
            with made_on(device):
                assert torch.tensor(0.0).device.type == expected
        with torch.device("meta"), made_on(torch.device("cpu")):
            assert torch.zeros(2).device.type == "cpu"


@pytest.mark.cuda
class TestOnACard:
    @everything
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @each
    def test_the_values_of_the_cpu(self, model: Callable[[], None], dtype: torch.dtype) -> None:
        target = PyroTarget(model)
        z = torch.randn(9, target.dim, dtype=dtype, generator=torch.Generator().manual_seed(1))
        expected = target.log_prob(z)
        here = target.batching
        found = target.log_prob(z.cuda())
        assert found.is_cuda and target.batching == here
        tolerance = 1e-4 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)

    @everything
    @each
    def test_sites_data_and_draws(self, model: Callable[[], None]) -> None:
        target = PyroTarget(model)
        z = torch.randn(4, target.dim, generator=torch.Generator().manual_seed(1)).cuda()
        assert all(value.is_cuda for value in target.constrain(z).values())
        assert target.prior_draws(3, 0) is not None
        if model is not with_a_parameter:
            assert all(value.is_cuda for value in target.predict(z, seed=0).values())
            assert all(value.is_cuda for value in target.log_likelihood(z).values())

    @each
    @everything
    def test_fits(self, model: Callable[[], None]) -> None:
        found, eager = (
            NFVI("scale-loc", seed=0, device="cuda").fit(
                PyroTarget(model), steps=60, n_mc=16, restarts=2, progress=False, compile=c
            )
            for c in ("trace", False)
        )
        assert torch.equal(found.history.loss, eager.history.loss)
        if model in (models.eight_schools, models.logistic_regression):
            assert found.settings["evaluation"] in ("captured", "traced and captured")
