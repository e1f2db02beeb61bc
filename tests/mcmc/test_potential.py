"""The traced potential: the very draws of the plain one, or the plain one."""

from __future__ import annotations

import pytest
import torch

from nfvi import LogDensity, as_target, hmc, nuts
from nfvi.mcmc import potential as potential_module
from nfvi.mcmc.potential import Potential, traced_potential
from tests.traced_targets import banana, fragile, schools

SHORT = {"draws": 20, "warmup": 20, "chains": 2, "seed": 3, "progress": False}


TARGETS = {
    "banana": lambda: LogDensity(banana, 2),
    "schools": lambda: as_target(schools, torch.tensor([28.0, 8.0, -3.0])),
    "fragile": lambda: LogDensity(fragile, 2),
}


@pytest.mark.parametrize("sampler", [nuts, hmc])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_same_draws(name, sampler, monkeypatch) -> None:
    options = SHORT | ({"init": torch.full((2, 2), 0.5)} if name == "fragile" else {})
    plain = sampler(TARGETS[name](), **options)
    monkeypatch.setattr(potential_module, "LEAST_DRAWS", 1)
    used = []
    monkeypatch.setattr(
        potential_module, "known_gradient", _counted(potential_module.known_gradient, used)
    )
    traced = sampler(TARGETS[name](), **options)
    assert used
    assert torch.equal(traced.draws, plain.draws)
    assert torch.equal(traced.diverging, plain.diverging)
    assert traced.gradient_evaluations == plain.gradient_evaluations


def _counted(function, used: list[int]):
    def call(*args):
        used.append(1)
        return function(*args)

    return staticmethod(call)


def test_value_and_gradient_to_the_last_bit() -> None:
    target = LogDensity(banana, 2)
    graph = traced_potential(target, torch.zeros(1, 2), 10**4)
    assert graph is not None
    for seed in range(3):
        z = torch.randn(2, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        values = [Potential(target, g)({"z": z}) for g in (graph, None)]
        assert torch.equal(*values)
        assert torch.equal(*(torch.autograd.grad(value, z)[0] for value in values))


def test_left_alone() -> None:
    """Short runs, and targets whose course depends on values."""
    target = LogDensity(banana, 2)
    assert traced_potential(target, torch.zeros(1, 2), 10) is None
    branching = LogDensity(lambda z: banana(z if bool(z.isfinite().all()) else 0 * z), 2)
    assert traced_potential(branching, torch.zeros(1, 2), 10**4) is None
