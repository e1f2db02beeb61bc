"""TensorBoard's files hold the history of the fit."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from nfvi import NFVI, Checkpoint, TensorBoard


def normal(z):
    return -0.5 * (z**2).sum(-1)


nfvi = NFVI("scale-loc", seed=0)
fit = partial(nfvi.fit, normal, dim=2, steps=30, n_mc=16, restarts=2)


def read(folder):
    """{curve: [(step, value)]} of all event files in a folder."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder), size_guidance={events.SCALARS: 0}).Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_curves_are_the_history(tmp_path):
    pytest.importorskip("tensorboard")
    result = fit(callbacks=[TensorBoard(tmp_path / "log", every=10)])
    curves = read(tmp_path / "log")
    names = ("elbo", "loss", "grad_norm", "beta")
    assert set(curves) == {"lr", *(f"{n}/restart_{i}" for n in names for i in range(2))}
    for name in names:
        for i in range(2):
            steps, values = zip(*curves[f"{name}/restart_{i}"], strict=True)
            assert steps == (10, 20, 30)
            column = getattr(result.history, name)[9::10, i]
            assert values == pytest.approx(column.tolist(), rel=1e-6)
    assert [v for _, v in curves["lr"]] == pytest.approx(
        result.history.lr[9::10].tolist(), rel=1e-6
    )


def test_a_resumed_fit_draws_each_point_once(tmp_path):
    pytest.importorskip("tensorboard")
    file, folder = tmp_path / "fit.ckpt", tmp_path / "log"

    def fail(state):
        if state.step == 25:
            raise OSError("stopped")

    with pytest.raises(OSError, match="stopped"):
        fit(callbacks=[TensorBoard(folder, every=5), Checkpoint(file, every=12), fail])
    NFVI.resume(file).fit(normal, dim=2, callbacks=[TensorBoard(folder, every=5)])
    assert [step for step, _ in read(folder)["lr"]] == [5, 10, 15, 20, 25, 30]


def test_says_which_extra_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'nfvi\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="every must be an integer"):
        TensorBoard(tmp_path, every=0)
