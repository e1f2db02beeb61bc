"""Guides as headers and state dicts, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from nfvi import Guide, MixtureGuide
from nfvi.flows import lookup, names
from nfvi.guides.header import guide_from_header, header_of_guide
from nfvi.guides.placement import Placement

LOC = torch.tensor([3.0, -1.0])
PLACEMENTS = {
    "none": None,
    "diagonal": Placement(LOC, torch.tensor([0.5, 2.0])),
    "full": Placement(LOC, torch.tensor([[0.5, 0.0], [0.3, 2.0]])),
}


def made(placement: Placement | None, formula: str = "planar*2", **options: Any) -> Guide:
    generator = torch.Generator().manual_seed(3)
    return Guide(formula, 2, jitter=0.3, placement=placement, generator=generator, **options)


def read_again(guide: Guide | MixtureGuide) -> Guide | MixtureGuide:
    header = json.loads(json.dumps(header_of_guide(guide)))
    return guide_from_header(header, guide.state_dict())


def same(a: Guide | MixtureGuide, b: Guide | MixtureGuide) -> bool:
    x = torch.randn(7, 2, dtype=a.dtype, generator=torch.Generator().manual_seed(0))
    draws = [g.sample(7, generator=torch.Generator().manual_seed(1)) for g in (a, b)]
    return torch.equal(a.log_prob(x), b.log_prob(x)) and torch.equal(*draws)


@pytest.mark.parametrize("kind", PLACEMENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("base", ["normal", "studentt(df=4)"])
def test_a_guide_comes_back_bit_for_bit(kind: str, dtype: torch.dtype, base: str) -> None:
    guide = made(PLACEMENTS[kind], dtype=dtype, base=base)
    read = read_again(guide)
    assert same(guide, read) and read.dtype == dtype and read.base == guide.base
    assert (read.placement is None) == (kind == "none")
    assert header_of_guide(read) == header_of_guide(guide)


@pytest.mark.parametrize("name", [n for n in names() if lookup(n).name == n])
@pytest.mark.parametrize("dim", [2, 3, 4, 7])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_every_family_comes_back_in_odd_and_even_dimensions(name, dim, context_dim) -> None:
    """Layers take turns, and those of one half of an odd d are of another size than the others."""
    takes = context_dim and lookup(name).cls.takes_context
    for formula in (f"{name}*3", f"({name}*2-reverse)*2", f"{name}-perm-{name}*2"):
        generator = torch.Generator().manual_seed(3)
        guide = Guide(formula, dim, context_dim=context_dim * bool(takes), generator=generator)
        read = read_again(guide)
        for key, value in guide.state_dict().items():
            assert torch.equal(read.state_dict()[key], value), (formula, key)


def test_a_context_is_kept() -> None:
    assert read_again(made(None, "iaf", context_dim=3)).context_dim == 3


def test_a_mixture_of_different_guides_comes_back_bit_for_bit() -> None:
    guides = [made(placement) for placement in PLACEMENTS.values()]
    mixed = MixtureGuide([*guides, made(None, "scale-loc")], [0.1, 0.2, 0.3, 0.4])
    read = read_again(mixed)
    assert same(mixed, read) and torch.equal(mixed.weights, read.weights)
    assert [g.formula for g in read.guides] == [g.formula for g in mixed.guides]


def test_a_header_of_an_earlier_version_has_neither_kind_nor_placement() -> None:
    guide = made(None)
    old = {"formula": "planar*2", "dim": 2, "base": "normal", "dtype": "float32"}
    assert same(guide, guide_from_header(old, guide.state_dict()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "flow of flows"),
        ("placement", "round"),
        ("placement", "full"),
        ("formula", "planar*3"),
        ("dtype", "save"),
        ("dim", "two"),
    ],
)
def test_headers_that_do_not_fit(name: str, value: Any) -> None:
    guide = made(PLACEMENTS["diagonal"])
    with pytest.raises((KeyError, ValueError, TypeError, RuntimeError, AttributeError)):
        guide_from_header({**header_of_guide(guide), name: value}, guide.state_dict())
