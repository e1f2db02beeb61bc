"""A fit that is cut short and resumed ends bit for bit where the uninterrupted one does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import nfvi.utils.files
from nfvi import (
    NFVI,
    Callback,
    CheckElboConvergence,
    CheckParametersConvergence,
    Checkpoint,
    Fit,
    FitError,
    GradientTracker,
    ProgressBar,
    Stop,
    TargetError,
    Tracker,
)

STEPS = 60


def target(z):
    return -0.5 * (z[..., 0] - z[..., 1] ** 2) ** 2 - 0.5 * z[..., 1] ** 2


def stop_at(step):
    """A callback that fails after a step: what is on the disk then is all that is left."""

    def callback(state):
        if state.step == step:
            raise OSError("power cut")

    return callback


def start(file, *, formula="planar*2", fail=45, every=20, callbacks=(), **options):
    """Run a fit that breaks off after ``fail`` steps, with checkpoints every 20."""
    options = {"dim": 2, "steps": STEPS, "n_mc": 16, "restarts": 2} | options
    run = partial(NFVI(formula, seed=5, dtype=options.pop("dtype", None)).fit, target, **options)
    if fail is not None:
        with pytest.raises(OSError, match="power cut"):
            run(callbacks=[*callbacks, Checkpoint(file, every=every), stop_at(fail)])
    return run


def resume(file, **options):
    return NFVI.resume(file).fit(target, dim=2, **options)


def assert_same(a: Fit, b: Fit) -> None:
    for name, value in a.guide.state_dict().items():
        assert value.isfinite().all(), name
        assert torch.equal(value, b.guide.state_dict()[name]), name
    for name, value in a.history.state_dict().items():
        assert torch.equal(value, b.history.state_dict()[name]), name
    assert a.restarts == b.restarts and a.stopped == b.stopped
    assert a.gradient_evaluations == b.gradient_evaluations and a.settings == b.settings


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"restarts": 1, "gradient": "total", "anneal": False},
        {"dtype": torch.float64, "anneal": [0.0, 0.9]},
        {"optimizer": momentum},
        {"optimizer": torch.optim.RMSprop, "lr": 1e-3},
        {"formula": "loc", "optimizer": lbfgs, "restarts": 1},
        {"formula": "scale-hh*2-loc", "optimizer": torch.optim.AdamW, "lr": 0.05},
    ],
    ids=["default", "total", "float64", "momentum", "rmsprop", "lbfgs", "adamw"],
)
def test_resumes_bit_for_bit(options, tmp_path):
    file = tmp_path / "fit.ckpt"
    run = start(file, **options)
    resumed = resume(file, optimizer=options.get("optimizer"))
    assert_same(run(), resumed)


def trackers():
    return [
        Tracker(every=7, elbo=lambda s: s.elbo, step=lambda s: s.step, loss=lambda s: 1.0 * s.loss),
        GradientTracker(every=6, groups=4),
        CheckParametersConvergence(every=11, tolerance=1e-9),
        CheckElboConvergence(every=5, window=20, tolerance=1e-9),
        Tracker(every=100, nothing=lambda s: s.elbo),
    ]


def test_callbacks_go_on_as_if_never_stopped(tmp_path):
    file = tmp_path / "fit.ckpt"
    whole, first, second = trackers(), trackers(), trackers()
    # The checkpoint stands before the trackers here, and still holds all of a step.
    run = start(file, callbacks=[Checkpoint(tmp_path / "other.ckpt", every=21), *first])
    resumed = resume(file, callbacks=[lambda state: None, *second])
    assert_same(run(callbacks=whole), resumed)
    for expected, found in zip(whole, second, strict=True):
        states = expected.state_dict(), found.state_dict()
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            assert torch.equal(value, states[1][key]), key
    assert second[0].steps.tolist() == [7, 14, 21, 28, 35, 42, 49, 56]
    assert len(resumed.history) == STEPS


def test_a_checkpoint_that_stands_first_is_written_last(tmp_path):
    file, tracker = tmp_path / "fit.ckpt", Tracker(every=20, step=lambda s: s.step)
    start(file, callbacks=[Checkpoint(file, every=20), tracker])
    again = Tracker(every=20, step=lambda s: s.step)
    resume(file, callbacks=[again])
    assert again.steps.tolist() == [20, 40, 60]


CHILD = """
import sys, time
from tests.training.callbacks.test_checkpoint import CHILD_OPTIONS, target, trackers
from nfvi import NFVI, Checkpoint

def slowly(state):
    print(state.step, flush=True)
    time.sleep(0.02)

callbacks = [*trackers(), slowly, Checkpoint(sys.argv[1], every=20)]
NFVI("planar*2", seed=5).fit(target, callbacks=callbacks, **CHILD_OPTIONS)
"""
CHILD_OPTIONS = {"dim": 2, "steps": 200, "n_mc": 16, "restarts": 2}


def test_survives_sigkill(tmp_path):
    file = tmp_path / "fit.ckpt"
    root = Path(__file__).parent.parent
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    # One thread count for both processes: sums over threads are rounded differently.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": path}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file)], stdout=subprocess.PIPE, env=os.environ | threads
    )
    with child:
        for line in child.stdout:
            if int(line) == 69:
                child.kill()
    assert child.returncode == -signal.SIGKILL
    assert [f.name for f in tmp_path.iterdir() if not f.name.startswith(".")] == ["fit.ckpt"]
    whole, second = trackers(), trackers()
    resumed = resume(file, callbacks=second)
    assert_same(NFVI("planar*2", seed=5).fit(target, callbacks=whole, **CHILD_OPTIONS), resumed)
    assert torch.equal(whole[1].flow_snr, second[1].flow_snr)
    assert torch.equal(whole[0]["elbo"], second[0]["elbo"])


def test_the_last_file_of_a_whole_run_is_the_whole_run(tmp_path):
    file = tmp_path / "fit.ckpt"
    run = start(file, fail=None)
    whole = run(callbacks=[Checkpoint(file, every=1000)])
    assert_same(whole, resume(file))
    # The optimiser continues with it as if the fit had not been put away.
    assert_same(whole.refine(20), resume(file).refine(20))


def test_a_checkpoint_can_be_resumed_twice(tmp_path):
    file = tmp_path / "fit.ckpt"
    start(file)
    nfvi = NFVI.resume(file)
    assert_same(nfvi.fit(target, dim=2), nfvi.fit(target, dim=2))


def test_a_resumed_run_can_be_cut_short_again(tmp_path):
    file = tmp_path / "fit.ckpt"
    run = start(file)
    with pytest.raises(OSError, match="power cut"):
        resume(file, callbacks=[Checkpoint(file, every=3), stop_at(55)])
    assert_same(run(), resume(file))


def test_refine_can_be_resumed_too(tmp_path):
    file = tmp_path / "fit.ckpt"
    run = start(file, fail=None)
    with pytest.raises(OSError, match="power cut"):
        run().refine(40, callbacks=[Checkpoint(file, every=10), stop_at(STEPS + 25)])
    assert_same(run().refine(40), resume(file))


def test_a_resumed_refine_ends_where_the_refine_would_have(tmp_path):
    file = tmp_path / "fit.ckpt"
    stop = lambda s: Stop("enough") if s.step == 20 else None  # noqa: E731
    run = start(file, fail=None)
    with pytest.raises(OSError, match="power cut"):
        run(callbacks=[stop]).refine(25, callbacks=[Checkpoint(file, every=10), stop_at(42)])
    resumed = resume(file)
    assert resumed.steps == 45
    assert_same(run(callbacks=[stop]).refine(25), resumed)


def test_a_fit_that_a_callback_stopped_stays_stopped(tmp_path):
    file = tmp_path / "fit.ckpt"
    run = start(file, fail=None)
    stop = lambda s: Stop("enough") if s.step == 37 else None  # noqa: E731
    stopped = run(callbacks=[Checkpoint(file, every=20), stop])
    assert stopped.stopped == "enough"
    tracker = Tracker(step=lambda s: s.step)
    # The trackers of the two runs differ, so none may be named; plain functions are not counted.
    assert_same(stopped, resume(file, callbacks=[lambda s: None]))
    with pytest.raises(ValueError, match="callbacks"):
        resume(file, callbacks=[tracker])


def test_after_an_error_the_last_file_stays(tmp_path):
    file = tmp_path / "fit.ckpt"
    start(file, fail=45)
    assert nfvi.utils.files.read_file(file, "checkpoint")[0]["history.lr"].shape == (40,)


def test_after_every_restart_was_dropped_the_last_file_stays(tmp_path):
    file, calls = tmp_path / "fit.ckpt", []

    def breaks(z):
        calls.append(len(z))
        return target(z) if len(calls) < 30 else target(z) * torch.nan

    save = Checkpoint(file, every=10)
    options = {"steps": 300, "n_mc": 16, "restarts": 1, "compile": False}
    with pytest.raises(FitError, match="every restart was dropped"):
        NFVI("planar*2", seed=0).fit(breaks, dim=2, callbacks=[save], **options)
    tensors, values = nfvi.utils.files.read_file(file, "checkpoint")
    assert values["stopped"] is None and tensors["guard.alive"].all()


def test_a_broken_write_warns_and_leaves_the_file_before(tmp_path, monkeypatch):
    file, good = tmp_path / "fit.ckpt", tmp_path / "good.ckpt"
    run = start(file)
    shutil.copy(file, good)

    def half(tensors, name, metadata):
        Path(name).write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(nfvi.utils.files, "save_file", half)
    said = r"fit\.ckpt.*the fit continues, and the file before stays"
    with pytest.warns(UserWarning, match=said):
        resumed = resume(file, callbacks=[Checkpoint(file, every=5)])
    monkeypatch.undo()
    assert file.read_bytes() == good.read_bytes()
    assert {f.name for f in tmp_path.iterdir()} == {"fit.ckpt", "good.ckpt"}
    assert_same(run(), resumed)
    assert_same(run(), resume(file))


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the size of files")
def test_a_disk_that_fills_up_warns_and_the_fit_goes_on(tmp_path):
    resource = pytest.importorskip("resource")
    file = tmp_path / "fit.ckpt"
    run = start(file, fail=None)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.warns(UserWarning, match=r"File too large: '.*fit\.ckpt'.*there is none yet"):
            fit = run(callbacks=[Checkpoint(file, every=20)])
        with pytest.raises(OSError, match=r"cannot write the file: File too large: '.*saved'"):
            fit.save(tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
    assert_same(run(), fit)


@pytest.mark.parametrize(
    "callbacks",
    [
        [],
        [Tracker(elbo=lambda s: s.elbo)],
        [GradientTracker(), Tracker(elbo=lambda s: s.elbo)],
    ],
)
def test_other_callbacks_are_refused(callbacks, tmp_path):
    file = tmp_path / "fit.ckpt"
    start(file, callbacks=[Tracker(elbo=lambda s: s.elbo), GradientTracker()])
    with pytest.raises(ValueError, match=r"\[Tracker, GradientTracker\].*same ones in the same"):
        resume(file, callbacks=callbacks)


def test_a_tracker_of_other_values_is_refused(tmp_path):
    file = tmp_path / "fit.ckpt"
    start(file, callbacks=[Tracker(elbo=lambda s: s.elbo)])
    with pytest.raises(ValueError, match="a Tracker of elbo, and this one is of loss"):
        resume(file, callbacks=[Tracker(loss=lambda s: s.loss)])


def test_callbacks_that_keep_nothing_are_not_counted(tmp_path, capsys):
    file = tmp_path / "fit.ckpt"
    start(file, callbacks=[ProgressBar(), Tracker(elbo=lambda s: s.elbo)])
    resume(file, callbacks=[Callback(), Tracker(elbo=lambda s: s.elbo)], progress=True)
    assert "20/20" in capsys.readouterr().err


def test_another_target_or_optimizer_is_refused(tmp_path):
    file = tmp_path / "fit.ckpt"
    start(file)
    with pytest.raises(TargetError, match="dim=3"):
        NFVI.resume(file).fit(lambda z: -(z**2).sum(-1), dim=3)
    with pytest.raises(ValueError, match="optimizer=Adam"):
        resume(file, optimizer=torch.optim.RMSprop)
    with pytest.raises(ValueError, match="steps= is fixed by the checkpoint"):
        resume(file, steps=100)


def test_files_that_are_no_checkpoints(tmp_path):
    file = tmp_path / "fit.ckpt"
    run = start(file)
    with pytest.raises(FitError, match=r"read it with NFVI\.resume"):
        Fit.load(file)
    (tmp_path / "short").write_bytes(file.read_bytes()[:-10])
    with pytest.raises(FitError, match="was it cut short"):
        NFVI.resume(tmp_path / "short")
    run().save(tmp_path / "saved")
    with pytest.raises(FitError, match=r"read it with Fit\.load"):
        NFVI.resume(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="no file"):
        NFVI.resume(tmp_path / "none")


def test_wall_time_counts_what_was_done_before(tmp_path):
    file = tmp_path / "fit.ckpt"
    start(file)
    before = nfvi.utils.files.read_file(file, "checkpoint")[1]["wall_time"]
    assert 0 < before < resume(file).wall_time


def test_a_missing_folder_is_found_before_the_first_step(tmp_path):
    steps = []
    for path, error in [
        (tmp_path / "no" / "fit.ckpt", FileNotFoundError),
        (tmp_path, IsADirectoryError),
    ]:
        with pytest.raises(error, match="Checkpoint"):
            start(None, fail=None)(callbacks=[lambda s: steps.append(s.step), Checkpoint(path)])
    assert not steps


def test_wrong_arguments():
    with pytest.raises(ValueError, match="every must be an integer"):
        Checkpoint("file", every=0)


def test_a_resumed_fit_that_fails_gives_the_checkpoint_s_guide(tmp_path):
    """Where no step after the resume is good, the last good guide is that of the checkpoint."""
    file, broken = tmp_path / "fit.checkpoint", []

    class Break(Callback):
        def open(self, state):
            broken.append(True)

    def breaking(z):
        return target(z) * (torch.nan if broken else 1.0)

    start(file, steps=200, fail=25, restarts=1)
    saved, _ = nfvi.utils.files.read_file(file, "checkpoint")
    with pytest.raises(FitError) as caught:
        NFVI.resume(file).fit(breaking, dim=2, callbacks=[Break()])
    guide = caught.value.guide
    got = torch.cat([p.detach().reshape(-1) for p in guide.parameters()])
    assert torch.equal(got, saved["flat"][0])
