"""Jobs in processes of their own: here, and on a cluster of Dask's."""

import os

import numpy as np
import pyro
import pytest
import torch

from nfvi import PyroTarget, calibrate, nuts
from nfvi.utils import in_processes, jobs_for

joblib = pytest.importorskip("joblib")
HOW = {"threads": 1, "name": "this"}


def told(shared, item):
    """What a job sees of itself."""
    shared["x"] += item  # of tensors and arrays that may be written to
    shared["a"][0] += item
    state = torch.get_default_dtype(), torch.get_num_threads(), dict(pyro.get_param_store().items())
    return os.getpid(), shared["x"], shared["a"], state


def test_no_more_processes_than_jobs():
    assert jobs_for(8, 3) == 3 and jobs_for(2, 3) == 2
    assert 1 <= jobs_for(-1, 3) <= 3 and jobs_for(None, 1) == 1
    with joblib.parallel_config(backend="loky", n_jobs=5):
        assert jobs_for(None, 9) == 5 and jobs_for(2, 9) == 2


@pytest.mark.process_wide
@pytest.mark.pyro_params
def test_jobs_run_elsewhere_as_they_would_here():
    """With large arrays, which joblib would map into memory that cannot be written to."""
    shared = {"x": torch.zeros(300_000), "a": np.zeros(300_000)}
    before = torch.get_default_dtype(), torch.get_num_threads()
    with pyro.get_param_store().scope():
        pyro.param("width", torch.tensor(0.7))
        torch.set_default_dtype(torch.float64)
        try:
            found = list(in_processes(told, shared, [1, 2, 3], processes=2, **HOW))
        finally:
            torch.set_default_dtype(before[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before
    assert len(found) == 3 and not shared["x"].any()
    for pid, x, a, (dtype, threads, params) in found:
        assert pid != os.getpid() and dtype == torch.float64 and threads == 1
        assert float(params["width"].detach()) == pytest.approx(0.7)
        assert float(x[0]) == a[0] > 0
        x += 1
        a += 1


def model(y):
    mean = pyro.sample("mean", pyro.distributions.Normal(0.0, 1.0))
    pyro.sample("y", pyro.distributions.Normal(mean, 1.0), obs=y)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_backend_that_gives_nothing_before_all_is_done():
    """As Ray's, which derives from this one: one job for each process at a time."""
    shared = {"x": torch.zeros(3), "a": np.zeros(2)}
    with joblib.parallel_config(backend="multiprocessing"):
        coming = in_processes(told, shared, [1, 2, 3], processes=2, **HOW)
        first = next(coming)
        rest = list(coming)
    assert len(rest) == 2 and os.getpid() not in {pid for pid, *_ in (first, *rest)}
    assert float(first[1][0]) == 1.0 and not shared["x"].any()


@pytest.mark.filterwarnings("ignore:.*fork")
def test_what_is_done_is_there_before_the_rest_is_asked_for():
    asked = []
    items = (asked.append(k) or k for k in range(6))
    with joblib.parallel_config(backend="multiprocessing"):
        coming = in_processes(
            told, {"x": torch.zeros(1), "a": np.zeros(1)}, items, **HOW, processes=2
        )
        next(coming)
        assert asked == [0, 1]
        coming.close()


@pytest.mark.filterwarnings("ignore:.*fork")
def test_calibrate_under_such_a_backend_is_the_same():
    how = {"simulations": 3, "draws": 9, "seed": 5, "steps": 5, "n_mc": 4, "restarts": 1}
    one = calibrate(model, "loc", torch.zeros(()), n_jobs=1, **how)
    with joblib.parallel_config(backend="multiprocessing"):
        two = calibrate(model, "loc", torch.zeros(()), n_jobs=2, **how)
    assert torch.equal(one.ranks["mean"], two.ranks["mean"]) and one.indices == two.indices


def test_a_cluster_of_dask_gives_the_same():
    """One worker in a process, whose jobs run in its threads; nothing of it is set here."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    how = {"simulations": 3, "draws": 9, "seed": 5, "steps": 5, "n_mc": 4, "restarts": 1}
    small = {"draws": 15, "warmup": 15, "chains": 2, "seed": 3, "progress": False}
    y, target = torch.zeros(()), PyroTarget(model, torch.zeros(()))
    one, run = calibrate(model, "loc", y, n_jobs=1, **how), nuts(target, **small)
    here = {"dashboard_address": None, "host": "127.0.0.1"}
    with (
        dask.config.set({"distributed.worker.use-file-locking": False}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, **here) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        before = len(client.get_task_stream())
        two, side = calibrate(model, "loc", y, **how), nuts(target, n_jobs=2, **small)
        assert len(client.get_task_stream()) > before
    assert torch.equal(one.ranks["mean"], two.ranks["mean"]) and one.indices == two.indices
    assert torch.equal(run.draws, side.draws)
