"""Fits of two processes, run as a script of its own: ``shared.py CASE RANK FOLDER``."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from nfvi import NFVI, Checkpoint, FitError, GradientTracker, LogDensity, Stop
from nfvi.training import Trainer
from nfvi.utils import write_file

SHORT = {"steps": 12, "n_mc": 9, "restarts": 3, "progress": False}


def banana(z):
    return -0.5 * (z[..., 0] ** 2 + (z[..., 1] - z[..., 0] ** 2) ** 2)


TARGET = LogDensity(banana, 2)
ROWS = torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
FITS = {
    "draws": lambda seed, **how: NFVI("planar*2", seed=seed).fit(TARGET, **SHORT, **how),
    "qmc": lambda seed, **how: NFVI("planar*2", seed=seed).fit(TARGET, draws="qmc", **SHORT, **how),
    "restarts": lambda seed, **how: NFVI("planar*2", seed=seed).fit(
        TARGET, distribute="restarts" if two() else None, **SHORT, **how
    ),
    "traced": lambda seed, **how: NFVI("planar", seed=seed).fit(
        TARGET, **{**SHORT, "steps": 300}, **how
    ),
    "start": lambda seed, **how: NFVI("planar", seed=seed).fit(
        TARGET, init="gaussian", **SHORT, **how
    ),
    "rows": lambda seed, **how: NFVI("maf", seed=seed).fit_data(
        ROWS, batch_size=33, epochs=3, progress=False, **how
    ),
}


def two() -> bool:
    return distributed.is_initialized()


def fitted(name, **how):
    """The same seed everywhere only where there is one process: several agree on one."""
    fit = FITS[name](7 + (distributed.get_rank() if two() else 0), **how)
    assert name != "traced" or fit.settings["evaluation"] == "traced"
    extra = {}
    if name != "rows":
        # One process alone may ask for diagnostics after a fit.
        asked = fit.elbo if not two() or distributed.get_rank() == 0 else fit.diagnostics.elbo
        extra["elbo"] = torch.tensor([asked, *(r.elbo for r in fit.restarts)])
        extra["evaluations"] = torch.tensor(fit.gradient_evaluations)
    return fit, {
        "flat": torch.cat([p.detach().flatten() for p in fit.guide.parameters()]),
        "loss": fit.history.loss,
        "error": getattr(fit.history, f"{fit.history.quantity}_se"),
        "norm": fit.history.grad_norm,
        "seed": torch.tensor(fit.settings["seed"]),
        **extra,
    }


def stopping(state):
    if two() and distributed.get_rank() == 1 and state.step == 5:
        return Stop("the second one has seen enough")
    return None


def raising(z):
    raising.calls += 1
    if raising.calls > 12 and distributed.get_rank() == 1:
        raise ArithmeticError("here")
    return banana(z)


raising.calls = 0


def case(name: str, folder: Path) -> dict[str, torch.Tensor]:
    if name == "all":
        found = {f"{k}.{key}": v for k in FITS for key, v in fitted(k)[1].items()}
        tracker = GradientTracker(every=2, groups=3)
        fit, values = fitted("draws", callbacks=[stopping, tracker])
        assert fit.stopped == "the second one has seen enough", fit.stopped
        values |= tracker.state_dict()
        found |= {f"stopped.{key}": value for key, value in values.items()}
        try:
            NFVI("planar").fit(LogDensity(raising, 2), compile=False, **SHORT)
        except FitError as error:
            said = str(error)
            assert ("ArithmeticError" if distributed.get_rank() else "another process") in said, (
                said
            )
        else:
            raise AssertionError("no error")
        try:
            NFVI("planar").fit(TARGET, **{**SHORT, "steps": 2 + distributed.get_rank()})
        except FitError as error:
            assert "differ in target, data, arguments" in str(error)
        else:
            raise AssertionError("no error")
        return found
    path = folder / "fit.ckpt"
    if name == "killed":
        kill = lambda state: os._exit(9) if state.step == 9 and distributed.get_rank() else None  # noqa: E731
        return fitted("draws", callbacks=[Checkpoint(path, every=4), kill])[1]
    fit = NFVI.resume(path).fit(TARGET, callbacks=[Checkpoint(path, every=4)], progress=False)
    assert isinstance(fit._trainer, Trainer)
    return {"flat": torch.cat([p.detach().flatten() for p in fit.guide.parameters()])}


def main(name: str, rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / f"store-{name}"), 2)
    distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    found = case(name, folder)
    write_file(folder / f"{name}-{rank}", "test", found, {})
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
