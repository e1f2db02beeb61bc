"""Sizes of formulas, told without building them, and formulas that no memory holds."""

from __future__ import annotations

import pytest
import torch

from nfvi import NFVI, Formula, FormulaError, Guide
from nfvi.flows.registry import lookup, names

FAMILIES = [name for name in names() if lookup(name).name == name]


@pytest.mark.parametrize("context_dim", [0, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_size_is_that_of_the_flows_that_are_built(name, context_dim):
    if context_dim and not lookup(name).cls.takes_context:
        return
    formula, dim = Formula.parse(f"({name}-reverse)*2"), 97
    flows = formula.build(dim, context_dim=context_dim)
    size = sum(x.numel() for flow in flows for x in (*flow.parameters(), *flow.buffers()))
    # Odd dimensions are not halved evenly by couplings.
    tolerance = 0.02 if name in ("realnvp", "nsf") else 0
    assert formula.estimated_size(dim, context_dim) == pytest.approx(size, rel=tolerance)


def test_what_no_memory_holds_is_refused_before_anything_is_made():
    state = torch.get_rng_state()
    said = (
        r"in 100,000,000 dimensions this formula has about 10,000,000,[\d,]+ numbers, which needs"
        r" 40,000,\d+ GB of memory or more, and this machine has .* GB: check dim="
    )
    with pytest.raises(FormulaError, match=said):
        Guide("tril", 10**8)
    assert torch.equal(torch.get_rng_state(), state)
    calls = []

    def target(z):
        calls.append(1)
        return -0.5 * (z**2).sum(-1)

    for formula in ("planar*8", "auto"):
        with pytest.raises(ValueError, match=rf"a fit of '{formula[:4]}.* GB of memory or more"):
            NFVI(formula).fit(target, dim=10**15)
    assert not calls


def test_large_dimensions_that_fit_are_built():
    assert len(Formula.parse("scale-loc").build(100_000)) == 2
