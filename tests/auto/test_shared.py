"""One climb of two processes: the same in both, led by the first, and never left hanging."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from nfvi import NFVI, LogDensity
from nfvi.training import launch
from nfvi.training.crew import LOOK_AGAIN, Pays
from nfvi.utils import read_file
from tests.auto import shared

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="needs gloo"
)
ROOT = Path(__file__).parents[2]


def run(name, folder, env=lambda rank: {}):
    """The exit codes of two processes."""
    script = Path(__file__).with_name("shared.py")
    here = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    base = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, name, str(r), folder], env={**base, **env(r)}
        )
        for r in range(2)
    ]
    return [rank.wait() for rank in ranks]


def read(name, folder):
    return [read_file(folder / f"{name}-{rank}", "test")[0] for rank in range(2)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    assert run("whole", folder) == [0, 0]
    return read("whole", folder)


def same(found):
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        if not name.endswith("points"):
            assert torch.equal(value.nan_to_num(7.0), found[1][name].nan_to_num(7.0)), name


def test_each_evaluates_its_share_of_a_batch(tmp_path):
    """Of 11 points the first has 6; what they find is what one process finds."""
    assert run("evaluated", tmp_path) == [0, 0]
    both = read("evaluated", tmp_path)
    same(both)
    assert [int(one["points"]) for one in both] == [18, 15]
    z = torch.randn(11, shared.DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = shared.Bent()(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    for name, right in (("value", value), ("log_p", value), ("score", slope), ("slope", slope)):
        assert torch.equal(both[0][name], right.detach()), name


def test_a_climb_is_the_same_in_both_bit_for_bit(found):
    same(found)
    assert len(found[0]["both.path"]) >= 2  # a Gaussian, and a learned flow
    assert found[0]["both.steps"].tolist() == list(range(1, shared.STEPS + 1))


def test_it_is_the_same_whoever_evaluates(found):
    """The first process alone takes the shares one after the other."""
    for name in ("flat", "quality", "path", "elbo"):
        both, first = found[0][f"both.{name}"], found[0][f"first.{name}"]
        if name == "path":  # without the seconds
            both, first = both[:, [0, 2]], first[:, [0, 2]]
        assert torch.equal(both, first), name


@pytest.mark.parametrize("what", ["both", "search", "verify"])
def test_both_have_half_of_the_points(found, what):
    points = [int(one[f"{what}.points"]) for one in found]
    assert min(points) > 0.4 * sum(points) > 100


def test_a_search_together_finds_what_one_alone_finds(found):
    assert float(found[0]["search"]) == pytest.approx(float(found[0]["alone"]), abs=1e-5)


def test_climbs_end_together_by_the_clock_and_by_ctrl_c(tmp_path):
    assert run("stopped", tmp_path) == [0, 0]
    same(read("stopped", tmp_path))


def test_an_error_in_one_ends_all(tmp_path):
    assert run("failing", tmp_path) == [0, 0]


def test_a_process_that_dies_ends_the_others_with_an_error(tmp_path):
    assert run("lost", tmp_path) == [0, 9]


def test_torchruns_processes_share_a_fit_of_a_script_that_knows_nothing_of_it(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    common |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    assert run("launched", tmp_path, lambda rank: {**common, "RANK": str(rank)}) == [0, 0]
    same(read("launched", tmp_path))


@pytest.mark.parametrize(
    ("name", "value"), [("TORCHELASTIC_RUN_ID", None), ("WORLD_SIZE", "1"), ("RANK", None)]
)
def test_nothing_is_joined_without_torchrun(monkeypatch, name, value):
    for key in ("TORCHELASTIC_RUN_ID", "RANK"):
        monkeypatch.setenv(key, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.is_launched()
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert not launch.is_launched()
    launch.join_launched()
    assert not distributed.is_initialized()


def test_what_is_cheap_stays_with_the_first_process():
    """And every 64th batch is asked of all, in case that has changed."""
    pays = Pays(others=1)
    assert pays.ask()
    pays.evaluated(0.001)
    pays.answered(0.003)
    assert [pays.ask() for _ in range(LOOK_AGAIN)].count(True) == 1
    pays.evaluated(1.0)
    assert all(pays.ask() for _ in range(3))


def test_distribute_needs_a_group():
    fit = NFVI("loc", seed=0).fit(LogDensity(shared.Bent(), shared.DIM), steps=1)
    for wrong in (fit.search, fit.verify):
        with pytest.raises(ValueError, match="needs an initialised group"):
            wrong(distribute=True)
        with pytest.raises(ValueError, match="distribute must be True or False"):
            wrong(distribute="draws")
