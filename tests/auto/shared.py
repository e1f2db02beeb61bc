"""Climbs of two processes, run as a script of its own: ``shared.py CASE RANK FOLDER``."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from nfvi import NFVI, Budget, FitError, LogDensity
from nfvi.targets import log_prob_and_score, log_prob_anywhere
from nfvi.training import Crew, Ranks, crew
from nfvi.utils import write_file

DIM, STEPS = 6, 6


class Bent:
    """A ridge that bends, which counts calls and points, and may do something at one of them."""

    def __init__(self, at=None, then=lambda: None, rank=1):
        self.at, self.then, self.rank = at, then, rank
        self.calls = self.points = 0

    def __call__(self, z):
        self.calls += 1
        self.points += len(z)
        if self.at is not None and self.calls >= self.at and rank() == self.rank:
            self.then()
        return -0.5 * (z**2).sum(-1) - 0.5 * (z[..., 1] - z[..., 0] ** 2) ** 2


def rank():
    return distributed.get_rank() if distributed.is_initialized() else 0


def climb(bent=None, seed=None, **how):
    """A short climb; both take the seed of the first process."""
    how = {"budget": Budget(steps=STEPS), "compile": False, "progress": False} | how
    seed = 7 + rank() if seed is None else seed
    return NFVI("auto", seed=seed).fit(LogDensity(bent or Bent(), DIM, name="bent"), **how)


def numbers(fit):
    """What two processes must have alike."""
    return {
        "flat": torch.cat([p.detach().flatten() for p in fit.guide.parameters()]),
        "quality": torch.tensor([fit.elbo, fit.khat, fit.log_evidence]),
        "path": torch.tensor([[r.elbo, r.wall_time, r.gradient_evaluations] for r in fit.path]),
        "seed": torch.tensor(fit.seed),
        "elbo": fit.history.elbo,
    }


def evaluated():
    """Values and scores of a batch by two processes, and how many points this one had."""
    asked_always(True)
    bent = Bent()
    target = LogDensity(bent, DIM, name="bent")
    target.check(torch.float32)
    one = Crew(Ranks(None), target, torch.device("cpu"), traced=False)
    z = torch.randn(11, DIM, generator=torch.Generator().manual_seed(0))

    def work():
        leaf = z.clone().requires_grad_()
        value = log_prob_anywhere(target, leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        return log_prob_anywhere(target, z), *log_prob_and_score(target, z), slope

    bent.points = 0
    found = one.share(work)
    return dict(zip(("value", "log_p", "score", "slope"), found, strict=True)) | {
        "points": torch.tensor(bent.points)
    }


def asked_always(crews):
    crew.Pays.ask = lambda self: crews


def whole():
    """A climb in which both evaluate, one in which the first does it alone, and what follows."""
    asked_always(True)
    bent, steps = Bent(), []
    fit = climb(bent, callbacks=[lambda state: steps.append(state.step)])
    found = {f"both.{name}": value for name, value in numbers(fit).items()}
    found |= {"both.points": torch.tensor(bent.points), "both.steps": torch.tensor(steps)}
    asked_always(False)
    found |= {f"first.{name}": v for name, v in numbers(climb(seed=fit.seed)).items()}
    asked_always(True)
    bent.points = 0
    found["search"] = torch.tensor(fit.search(draws=1_000, starts=2, distribute=True).log_evidence)
    found["search.points"] = torch.tensor(bent.points)
    found["alone"] = torch.tensor(fit.search(draws=1_000, starts=2).log_evidence)
    bent.points = 0
    checked = fit.verify(chains=100, distribute=True)
    found["verify"] = torch.tensor([c.mean_error for c in checked.checks] + [checked.accept])
    found["verify.points"] = torch.tensor(bent.points)
    fit.refine(2)
    return found | {f"refined.{name}": value for name, value in numbers(fit).items()}


def stopped():
    """Climbs that end early: by the clock, and by Ctrl-C in the second process."""
    asked_always(True)
    press = lambda: signal.raise_signal(signal.SIGINT)  # noqa: E731

    def on_step(state):
        if state.step == 2 and rank() == 1:
            press()

    fits = {
        "seconds": climb(budget=3.0),
        "pressed in a step": climb(callbacks=[on_step]),
        "pressed in a batch": climb(once(30, press)),
    }
    for name, fit in fits.items():
        expected = "interrupted" if "pressed" in name else "the budget of 3 seconds was spent"
        assert fit.stopped == expected, f"{name}: {fit.stopped}, {fit.path}"
    return {f"{name}.{k}": v for name, fit in fits.items() for k, v in numbers(fit).items()}


def once(at, then):
    bent = Bent(at, rank=1)

    def act():
        bent.at = None
        then()

    bent.then = act
    return bent


def said(**how):
    try:
        climb(**how)
    except (FitError, OSError) as error:
        return f"{type(error).__name__}: {error} | {error.__cause__!r}"
    raise AssertionError("no error")


def failing():
    """What both say where one of them fails."""
    asked_always(True)

    def broken():
        raise ArithmeticError("here")

    def leaves(state):
        if state.step == 2 and rank() == 0:
            raise OSError("full")

    target = said(bent=once(30, broken))
    assert "process 1 raised ArithmeticError: here" in target, target
    assert ("| ArithmeticError" in target) == (rank() == 1), target
    callback = said(callbacks=[leaves])
    mine = (
        "OSError: full" if rank() == 0 else "FitError: process 0 of this fit raised OSError: full"
    )
    assert callback.startswith(mine), callback
    differs = said(budget=Budget(steps=4 + rank()))
    assert "differ in target, data, arguments" in differs, differs
    return {}


def lost():
    """The second process ends in the middle of a batch."""
    asked_always(True)
    words = said(bent=once(30, lambda: os._exit(9)))
    assert "a process of this fit has ended" in words, words
    return {}


def launched():
    """No group is initialised by the script."""
    assert not distributed.is_initialized()
    fit = NFVI("loc").fit(LogDensity(Bent(), DIM), steps=4, restarts=1, n_mc=8, progress=False)
    assert distributed.get_world_size() == 2
    return {"seed": torch.tensor(fit.seed), "loss": fit.history.loss}


CASES = {
    "evaluated": evaluated,
    "whole": whole,
    "stopped": stopped,
    "failing": failing,
    "lost": lost,
    "launched": launched,
}


def main(name: str, rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    # A shell has what it runs in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if name != "launched":
        store = distributed.FileStore(str(folder / f"store-{name}"), 2)
        distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120)
        )
    found = CASES[name]()
    write_file(folder / f"{name}-{rank}", "test", found or {"none": torch.zeros(1)}, {})
    if name not in ("launched", "lost"):
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
