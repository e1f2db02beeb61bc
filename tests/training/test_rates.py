"""A learning rate of its own for each restart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, optim

from nfvi import Guide, as_target
from nfvi.training.ensemble import Ensemble
from nfvi.training.loop import Trainer
from nfvi.training.objectives import ReverseKL
from nfvi.training.schedule import LearningRate, Tempering

STEPS, N_MC, RATES = 12, 8, (1.0, 0.25, 3.0)
TARGET = as_target(lambda z: -0.5 * ((z - 1) ** 2).sum(-1), dim=2)


class SameDraws(ReverseKL):
    """Every restart gets the draws of the first, so that rates alone tell them apart."""

    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> Tensor:
        one = ensemble.template.base_sample(1, self.n_mc, generator=generator)
        return one.expand(ensemble.size, -1, -1)


def trainer(rates: tuple[float, ...] | None, *, restarts: int = 3, lr: float = 0.05) -> Trainer:
    guide = Guide("scale-planar-loc", 2, generator=torch.Generator().manual_seed(0))
    ensemble = Ensemble([guide] * restarts)
    return Trainer(
        ensemble,
        SameDraws(TARGET, N_MC),
        optim.Adam([ensemble.flat], lr=lr),
        LearningRate.over(STEPS),
        Tempering((0,) * restarts),
        torch.Generator().manual_seed(1),
        {},
        rates=None if rates is None else torch.tensor(rates),
    )


def parameters(made: Trainer) -> Tensor:
    made.run()
    return made.ensemble.flat.detach()


def test_a_row_moves_as_if_its_rate_were_the_learning_rate() -> None:
    together = parameters(trainer(RATES))
    for row, rate in enumerate(RATES):
        alone = parameters(trainer(None, lr=0.05 * rate))[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)


def test_rates_of_one_change_nothing() -> None:
    assert trainer((1.0,) * 3).rates is None
    assert torch.equal(parameters(trainer((1.0,) * 3)), parameters(trainer(None)))
    # Nor do the rates of others change the row whose rate is 1.
    assert torch.equal(parameters(trainer(RATES))[0], parameters(trainer(None))[0])


@pytest.mark.parametrize("rates", [(1.0, 2.0), (1.0, 0.0, 1.0), (1.0, torch.inf, 1.0)])
def test_wrong_rates(rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rates must be 3 positive numbers"):
        trainer(rates)


def test_an_optimizer_that_mixes_rows_is_refused() -> None:
    ensemble = trainer(None, restarts=1).ensemble
    with pytest.raises(ValueError, match="LBFGS may mix"):
        Trainer(
            ensemble,
            ReverseKL(TARGET, N_MC),
            optim.LBFGS([ensemble.flat]),
            LearningRate.over(STEPS),
            Tempering((0,)),
            torch.Generator(),
            {},
            rates=torch.tensor([2.0]),
        )


def test_they_are_kept_in_checkpoints() -> None:
    from nfvi.training.snapshot import restore, snapshot

    whole, first, second = trainer(RATES), trainer(RATES), trainer(None)
    first.run(steps=5)
    tensors, values = snapshot(first, ())
    restore(second, tensors, values | {"last": STEPS, "stopped": None})
    whole.run()
    second.run()
    assert torch.equal(whole.ensemble.flat, second.ensemble.flat)
