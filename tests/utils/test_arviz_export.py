"""The export gives what the installed ArviZ works with."""

from __future__ import annotations

import json
import warnings
from importlib import metadata

import matplotlib
import numpy as np
import pytest
import torch

from nfvi.utils import arviz_functions
from nfvi.utils.arviz_export import to_inference_data

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def az():
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz")


@pytest.fixture
def draws() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "mu": torch.randn(4, 200, generator=generator),
        "theta": torch.randn(4, 200, 3, generator=generator, dtype=torch.float64),
        "L": torch.randn(4, 200, 2, 2, generator=generator),
    }


@pytest.fixture
def stats() -> dict[str, object]:
    return {
        "lp": torch.linspace(-1, 0, 800).reshape(4, 200),
        "diverging": np.zeros((4, 200), dtype=bool),
    }


def test_values_types_and_dimension_names(draws, stats):
    data = to_inference_data(draws, stats, {"khat": 0.3})
    posterior = data["posterior"]
    for name, x in draws.items():
        np.testing.assert_array_equal(posterior[name].values, x.numpy())
        assert posterior[name].values.dtype == x.numpy().dtype
    assert posterior["theta"].dims == ("chain", "draw", "theta_dim_0")
    assert posterior["L"].dims == ("chain", "draw", "L_dim_0", "L_dim_1")
    assert posterior["theta"]["theta_dim_0"].values.tolist() == [0, 1, 2]
    assert data["sample_stats"]["diverging"].dtype == bool
    np.testing.assert_array_equal(data["sample_stats"]["lp"].values, stats["lp"].numpy())


# ArviZ 0.23 calls a function of Matplotlib in a way that 3.11 deprecates.
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")
def test_summary_and_trace_plot(az, draws, stats):
    data = to_inference_data(draws, stats, {"khat": 0.3})
    summary = az.summary(data)
    names = [
        "mu",
        *(f"theta[{i}]" for i in range(3)),
        *(f"L[{i}, {j}]" for i in (0, 1) for j in (0, 1)),
    ]
    assert list(summary.index) == names
    # ArviZ rounds what it shows, to two digits at the least
    assert float(summary.loc["mu", "mean"]) == pytest.approx(float(draws["mu"].mean()), abs=0.006)
    assert az.plot_trace(data, var_names=["mu", "theta"]) is not None


def test_attributes_are_stored_as_netcdf_takes_them(draws):
    given = {
        "khat": torch.tensor(0.25),
        "steps": np.int64(7),
        "interrupted": True,
        "accept": torch.tensor([0.8, 0.9]),
        "missing": None,
        "restarts": [{"elbo": -1.5}, {"elbo": None}],
        "formula": "planar*8",
    }
    data = to_inference_data(draws, attrs=given)
    for attrs in (data.attrs, data["posterior"].attrs):
        assert attrs["khat"] == 0.25 and type(attrs["khat"]) is float
        assert attrs["steps"] == 7 and type(attrs["steps"]) is int
        assert attrs["interrupted"] == 1 and type(attrs["interrupted"]) is int
        assert attrs["accept"].tolist() == pytest.approx([0.8, 0.9])
        assert json.loads(attrs["restarts"]) == given["restarts"]
        assert attrs["formula"] == "planar*8"
        assert "missing" not in attrs


def test_netcdf_round_trip(az, draws, stats, tmp_path):
    pytest.importorskip("h5netcdf")
    data = to_inference_data(draws, stats, {"khat": 0.3, "interrupted": False, "who": ["a", 1]})
    data.to_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf")
    back = az.from_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf")
    np.testing.assert_array_equal(back["posterior"]["L"].values, draws["L"].numpy())
    assert back["posterior"].attrs["khat"] == 0.3


@pytest.mark.parametrize("installed", [None, "0.23.4", "1.3.0"])
def test_the_kind_follows_the_installed_arviz(monkeypatch, draws, installed):
    def version(name: str) -> str:
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    if installed == "0.23.4" and not metadata.version("arviz").startswith("0."):
        pytest.skip("needs ArviZ 0.x")
    if installed != "0.23.4":
        pytest.importorskip("arviz_base", reason="needs ArviZ 1.x, thus Python 3.11")
    monkeypatch.setattr(arviz_functions.metadata, "version", version)
    kind = type(to_inference_data(draws)).__name__
    assert kind == ("InferenceData" if installed == "0.23.4" else "DataTree")


def test_one_draw_and_gradients_are_no_obstacle():
    data = to_inference_data({"z": torch.zeros(1, 1, 2, requires_grad=True)})
    assert data["posterior"]["z"].shape == (1, 1, 2)


def test_wrong_shapes_are_named(draws):
    with pytest.raises(ValueError, match=r"posterior\['z'\] has shape \(5,\)"):
        to_inference_data({"z": torch.zeros(5)})
    with pytest.raises(ValueError, match=r"sample_stats\['lp'\].*\(4, 200\)"):
        to_inference_data(draws, {"lp": torch.zeros(4, 100)})
