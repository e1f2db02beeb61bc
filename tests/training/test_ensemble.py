"""An ensemble computes for every restart what each guide computes alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi.errors import FormulaError
from nfvi.guides.guide import Guide
from nfvi.guides.placement import Placement
from nfvi.training.ensemble import Ensemble

FORMULAS = ["loc", "scale-loc", "scale-hh*3-loc", "planar*3", "radial*2", "planar*2-radial-hh*2"]
R, N, D = 3, 5, 4

each_formula = pytest.mark.parametrize("formula", FORMULAS)


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def guides(formula: str, count: int = R, base: str = "normal", device: str = "cpu") -> list[Guide]:
    return [
        Guide(
            formula,
            D,
            base=base,
            jitter=0.3,
            generator=seeded(i),
            dtype=torch.float64,
            device=device,
        )
        for i in range(count)
    ]


def noise(count: int = R, device: str = "cpu") -> Tensor:
    return torch.randn(count, N, D, generator=seeded(9, device), dtype=torch.float64, device=device)


def gradients(guide: Guide) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in guide.parameters()])


@each_formula
@pytest.mark.parametrize("count", [1, R])
@pytest.mark.parametrize("base", ["normal", "studentt(df=4)"])
class TestAsEachAlone:
    def test_push(self, formula: str, count: int, base: str) -> None:
        alone, z = guides(formula, count, base), noise(count)
        together = Ensemble(guides(formula, count, base))
        x, log_q = together.push(z)
        generic(x, log_q).backward()
        for r, guide in enumerate(alone):
            x_r, log_q_r = guide(z[r])
            torch.testing.assert_close(x[r], x_r)
            torch.testing.assert_close(log_q[r], log_q_r)
            generic(x_r, log_q_r).backward()
            torch.testing.assert_close(together.flat.grad[r], gradients(guide))

    def test_log_prob_with_the_parameters_held(self, formula: str, count: int, base: str) -> None:
        alone, z = guides(formula, count, base), noise(count)
        together = Ensemble(guides(formula, count, base))
        x = together.push(z)[0].detach().requires_grad_()
        value = together.log_prob(x, z)
        value.sum().backward()
        slope = x.grad
        assert together.flat.grad is None
        for r, guide in enumerate(alone):
            x_r = x[r].detach().requires_grad_()
            # Without the known preimage: a numeric inverse where there is no closed form.
            expected = guide.log_prob(x_r)
            torch.testing.assert_close(value[r], expected)
            (slope_r,) = torch.autograd.grad(expected.sum(), x_r)
            torch.testing.assert_close(slope[r], slope_r, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("formula", ["scale-loc", "scale-hh*3-loc", "maf(hidden=[8])-loc"])
@pytest.mark.parametrize("count", [1, R])
@pytest.mark.parametrize("width", [0, 2])
def test_log_likelihood_of_rows(formula: str, count: int, width: int) -> None:
    options = {"jitter": 0.3, "dtype": torch.float64, "context_dim": width}
    alone = [Guide(formula, D, generator=seeded(i), **options) for i in range(count)]
    together = Ensemble([Guide(formula, D, generator=seeded(i), **options) for i in range(count)])
    x = torch.randn(N, D, generator=seeded(1), dtype=torch.float64)
    context = torch.randn(N, width, generator=seeded(2), dtype=torch.float64) if width else None
    value = together.log_likelihood(x, context)
    (value**2).sum().backward()
    for r, guide in enumerate(alone):
        expected = guide.log_prob(x, context=context)
        torch.testing.assert_close(value[r], expected)
        (expected**2).sum().backward()
        torch.testing.assert_close(together.flat.grad[r], gradients(guide))


def test_a_guide_without_parameters_is_refused() -> None:
    with pytest.raises(FormulaError, match="'reverse' has no parameters to fit"):
        Ensemble([Guide("reverse", D)])


def generic(x: Tensor, log_q: Tensor) -> Tensor:
    """A scalar that depends on every entry in its own way."""
    return (x.sin() * torch.linspace(1, 2, D, dtype=x.dtype)).sum() + (log_q**2).sum()


@each_formula
def test_guide_gives_back_each_guide(formula: str) -> None:
    alone = guides(formula)
    together = Ensemble(alone)
    for r, guide in enumerate(alone):
        copy = together.guide(r)
        assert copy.formula == guide.formula
        for name, value in guide.state_dict().items():
            assert torch.equal(copy.state_dict()[name], value), name


def test_guide_is_a_copy() -> None:
    together = Ensemble(guides("scale-loc"))
    before = together.flat.detach().clone()
    with torch.no_grad():
        for parameter in together.guide(1).parameters():
            parameter.fill_(7.0)
    assert torch.equal(together.flat, before)


def test_guide_has_what_was_fitted() -> None:
    together = Ensemble(guides("scale-loc"))
    with torch.no_grad():
        together.flat[1] = torch.arange(8.0)
    assert together.guide(1).flows[0].rho.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert together.guide(1).flows[1].loc.tolist() == [4.0, 5.0, 6.0, 7.0]


@each_formula
def test_named_covers_every_parameter_once(formula: str) -> None:
    alone = guides(formula)
    together = Ensemble(alone)
    named = together.named(together.flat.detach())
    tracked = alone[0].tracked_names()
    assert list(named) == list(tracked.values())
    for inner, outer in tracked.items():
        for r, guide in enumerate(alone):
            assert torch.equal(named[outer][r], guide.state_dict()[inner])
    # Further leading dimensions stay in front.
    groups = together.named(torch.stack([together.flat.detach()] * 2))
    for name, value in groups.items():
        assert value.shape == (2, *named[name].shape)


def test_draw_is_base_noise_of_the_generator() -> None:
    together = Ensemble(guides("loc", base="laplace"))
    a, b = together.draw(N, seeded(3)), together.draw(N, seeded(3))
    assert a.shape == (R, N, D) and a.dtype == torch.float64
    assert torch.equal(a, b)
    assert len(a.unique()) == a.numel()


class TestFixed:
    """Frozen parameters and buffers are carried and never changed."""

    def frozen(self) -> list[Guide]:
        made = guides("scale-planar-loc")
        for r, guide in enumerate(made):
            guide.flows[1].requires_grad_(False)
            guide.flows[2].register_buffer("shift", torch.full((D,), float(r)))
        return made

    def test_they_are_not_among_the_trained(self) -> None:
        together = Ensemble(self.frozen())
        assert list(together.named(together.flat.detach())) == ["rho_0", "loc_2"]
        assert together.flat.shape == (R, 2 * D)
        assert set(together.fixed) == {"flows.1.u", "flows.1.w", "flows.1.b", "flows.2.shift"}

    @pytest.mark.parametrize("count", [1, R])
    def test_each_restart_keeps_its_own(self, count: int) -> None:
        alone, z = self.frozen()[:count], noise(count)
        together = Ensemble(self.frozen()[:count])
        x, log_q = together.push(z)
        generic(x, log_q).backward()
        for r, guide in enumerate(alone):
            x_r, log_q_r = guide(z[r])
            torch.testing.assert_close(x[r], x_r)
            generic(x_r, log_q_r).backward()
            trained = [p.grad.reshape(-1) for p in guide.parameters() if p.requires_grad]
            torch.testing.assert_close(together.flat.grad[r], torch.cat(trained))

    def test_guide_carries_them_and_what_is_frozen_stays_so(self) -> None:
        together = Ensemble(self.frozen())
        for r, guide in enumerate(self.frozen()):
            copy = together.guide(r)
            for name, value in guide.state_dict().items():
                assert torch.equal(copy.state_dict()[name], value), name
            assert not copy.flows[1].u.requires_grad
            assert copy.flows[0].rho.requires_grad


@pytest.mark.cuda
@each_formula
def test_on_cuda(formula: str) -> None:
    together, z = Ensemble(guides(formula, device="cuda")), noise(device="cuda")
    x, log_q = together.push(z)
    expected = Ensemble(guides(formula)).push(z.cpu())
    torch.testing.assert_close((x.cpu(), log_q.cpu()), expected)
    torch.testing.assert_close(together.log_prob(x.detach(), z).cpu(), expected[1])
    assert together.draw(N, seeded(device="cuda")).device.type == "cuda"


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("base", ["normal", "laplace"])
def test_the_start_is_the_base_behind_each_placement(count, base):
    generator = torch.Generator().manual_seed(3)
    loc, x = (torch.randn(count, *s, generator=generator) for s in ((2,), (5, 2)))
    tril = torch.randn(count, 2, 2, generator=generator).tril(-1) + 0.5 * torch.eye(2)
    places = [Placement(m, factor) for m, factor in zip(loc, tril, strict=True)]
    guides = [Guide("planar", 2, base=base, placement=p, generator=generator) for p in places]
    found = Ensemble(guides).log_start(x)
    for row, place in enumerate(places):
        z = torch.linalg.solve(place.tril, (x[row] - place.loc).T).T
        expected = guides[0].base.log_prob(z) - place.tril.diagonal().log().sum()
        torch.testing.assert_close(found[row], expected)


def test_without_a_placement_the_start_is_the_base():
    guide, x = Guide("planar", 2), torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(Ensemble([guide, guide]).log_start(x), guide.base.log_prob(x))
