"""Objects of other libraries handed over as they are: recognised, whether or not they are there."""

from __future__ import annotations

import types

import pyro
import pyro.distributions
import pytest
import torch

from nfvi import TargetError, as_target


def module(name: str) -> types.ModuleType:
    """A module of this name, with nothing in it."""
    return types.ModuleType(name)


def function(text: str, **names):
    """A function of a source, whose globals are these."""
    return types.FunctionType(compile(text, "<model>", "eval").co_consts[0], names, "model")


def of_class(name: str):
    return type("Model", (), {"__module__": name, "__call__": lambda self: None})()


LAMBDA = "lambda y: numpyro.sample('mu', dist.Normal(0, 1))"
NUMPYRO = function(LAMBDA, numpyro=module("numpyro"), dist=module("numpyro.distributions"))


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (NUMPYRO, {}, r"'model' is a NumPyro model: fit NumPyroTarget\(model.*nfvi\[jax\]"),
        (
            function("lambda z: -jnp.sum(z**2)", jnp=module("jax.numpy")),
            {"dim": 2},
            r"'model' is a function of JAX: fit JaxLogDensity\(model, dim=2\).*nfvi\[jax\]",
        ),
        (of_class("numpyro.handlers"), {}, "is a NumPyro model"),
        (of_class("bridgestan.model"), {}, r"StanTarget\(model\).*nfvi\[stan\]"),
        (of_class("stan.model"), {}, r"StanTarget\(model\).*nfvi\[stan\]"),
        (of_class("cmdstanpy.model"), {}, r"StanTarget\(model.stan_file, data=data\)"),
        ("a/model.stan", {}, r"StanTarget\('a/model.stan', data=data\)"),
    ],
)
def test_they_are_told_what_to_write(target, options, message):
    with pytest.raises(TargetError, match=message):
        as_target(target, **options)


def test_what_is_torchs_or_pyros_own_is_left_alone():
    def density(z):
        return -torch.sum(z**2, -1)

    def model():
        pyro.sample("x", pyro.distributions.Normal(0.0, 1.0))

    assert as_target(density, dim=2).dim == 2
    assert as_target(model).dim == 1
    assert as_target(pyro.poutine.mask(model, mask=True)).dim == 1
    mixed = function(
        "lambda z: -torch.sum(z**2, -1) if jnp else None", torch=torch, jnp=module("jax.numpy")
    )
    assert as_target(mixed, dim=2).dim == 2
