"""One fit of two processes: the same numbers in both, and those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from nfvi import NFVI, LogDensity
from nfvi.utils import read_file
from tests.training import shared

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="needs gloo"
)
ROOT = Path(__file__).parents[2]


def run(name: str, folder: Path) -> list[int]:
    """The exit codes of two processes."""
    script = Path(__file__).with_name("shared.py")
    here = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", script, name, str(r), folder], env=env)
        for r in range(2)
    ]
    return [rank.wait() for rank in ranks]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    assert run("all", folder) == [0, 0]
    return [read_file(folder / f"all-{rank}", "test")[0] for rank in range(2)]


def test_both_have_the_same_bit_for_bit(found):
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.parametrize("name", list(shared.FITS))
def test_they_make_the_fit_of_one_process_on_the_same_draws(found, name):
    """To rounding, which grows with the steps: in the first step, and less so in the last."""
    alone = shared.fitted(name)[1]
    mine = {key.removeprefix(f"{name}."): v for key, v in found[0].items() if key.startswith(name)}
    assert mine.keys() == alone.keys()
    assert torch.equal(mine["seed"], alone["seed"]) and int(mine["seed"]) == 7
    if "evaluations" in alone:
        assert torch.equal(mine["evaluations"], alone["evaluations"])
        torch.testing.assert_close(mine["elbo"], alone["elbo"], rtol=1e-2, atol=1e-2)
    for key in ("loss", "error", "norm"):
        torch.testing.assert_close(mine[key][:3], alone[key][:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine["flat"], alone["flat"], rtol=1e-2, atol=1e-2)


def test_a_stop_in_one_stops_both_at_the_same_step(found):
    assert [len(one["stopped.loss"]) for one in found] == [5, 5]


def test_a_killed_fit_goes_on_from_the_file_of_the_first(tmp_path, found):
    """The second process dies in step 9; the file is that of step 8."""
    codes = run("killed", tmp_path)
    assert codes[1] == 9 and codes[0] != 0
    assert (tmp_path / "fit.ckpt").is_file()
    assert run("resumed", tmp_path) == [0, 0]
    for rank in range(2):
        resumed = read_file(tmp_path / f"resumed-{rank}", "test")[0]
        assert torch.equal(resumed["flat"], found[0]["draws.flat"])


@pytest.mark.parametrize("distribute", ["draws", "restarts"])
def test_without_a_group_it_is_refused(distribute):
    target = LogDensity(shared.banana, 2)
    with pytest.raises(ValueError, match=r"needs an initialised group.*init_process_group"):
        NFVI("loc").fit(target, steps=1, distribute=distribute)


def test_wrong_words_are_refused():
    target = LogDensity(shared.banana, 2)
    for wrong in ("rows", 0, True):
        with pytest.raises(ValueError, match='distribute must be "draws", "restarts"'):
            NFVI("loc").fit(target, steps=1, distribute=wrong)
    with pytest.raises(ValueError, match="a fit to data has one"):
        NFVI("loc").fit_data(torch.zeros(9, 2), distribute="restarts")
