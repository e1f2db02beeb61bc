"""Many rows: all of them against the plain sum, a few against their mean, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from nfvi import LogDensity, NamedDensity, RowsTarget, TargetError
from nfvi.targets import affordable, numbers_per_point, row_likelihood
from nfvi.targets.row_data import read_rows
from nfvi.tracing import TraceError, traced

DTYPE = torch.float64
N, P = 57, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, P, generator=GENERATOR, dtype=DTYPE)
Y = X @ torch.tensor([1.0, -2.0, 0.5], dtype=DTYPE) + torch.randn(N, generator=GENERATOR)


def log_prior(w: Tensor) -> Tensor:
    return -0.5 * (w**2).sum(-1)


def of_point(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return -0.5 * (y - x @ w) ** 2


def of_batch(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return -0.5 * (y - w @ x.T) ** 2


def whole(w: Tensor) -> Tensor:
    return log_prior(w) + of_batch(w, X, Y).sum(1)


def made(log_likelihood: Callable[..., Any] = of_point, data: Any = (X, Y), **named: Any):
    return RowsTarget(log_prior, log_likelihood, data, **{"dim": P, "batch_size": 8, **named})


def points(n: int = 7, dim: int = P) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(1), dtype=DTYPE)


def value_and_slope(fn: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.clone().requires_grad_()
    value = fn(leaf)
    return value.detach(), torch.autograd.grad(value.square().sum(), leaf)[0]


@pytest.mark.parametrize("likelihood", [of_point, of_batch])
def test_all_rows_in_pieces_are_the_sum(likelihood, monkeypatch):
    monkeypatch.setattr(row_likelihood, "PIECE", 100)
    monkeypatch.setattr(row_likelihood, "DRAWS", 3)
    target = made(likelihood)
    assert (target.rows, target.batch_size, target.dtype) == (N, 8, DTYPE)
    assert target.without_prior == () and target.prior_draws(3, 0) is None
    for found, expected in zip(
        value_and_slope(target.log_prob, points()), value_and_slope(whole, points()), strict=True
    ):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(target.log_prob(points()), whole(points()))


def test_float32_keeps_the_digits_of_a_sum_over_many_rows():
    x = torch.full((300_000,), 0.1)
    target = RowsTarget(log_prior, lambda w, x: -((x - w) ** 2), x, dim=1)
    z = torch.zeros(1, 1)
    exact = -300_000 * float(x[0].double() ** 2)
    assert target.log_prob(z).dtype == torch.float32
    assert float(target.log_prob(z)) == pytest.approx(exact, rel=1e-7)


def test_a_minibatch_is_the_scaled_sum_and_its_mean_is_that_of_all_rows():
    target = made()
    generator, z = torch.Generator().manual_seed(2), points(2)
    rows = target.draw_rows(generator)
    assert [tuple(part.shape) for part in rows] == [(8, P), (8,)]
    expected = log_prior(z) + N / 8 * of_batch(z, *rows).sum(1)
    torch.testing.assert_close(target.log_prob_of(z, rows), expected)
    many = torch.stack([target.log_prob_of(z, target.draw_rows(generator)) for _ in range(500)])
    error = many.std(0) / len(many) ** 0.5
    # Five standard errors: a false alarm in 10⁶.
    assert bool(((many.mean(0) - whole(z)).abs() < 5 * error).all())


def test_rows_come_from_the_generator_none_twice_and_all_at_once_where_a_step_takes_them():
    target = made(lambda w, i: -((i - w) ** 2), torch.arange(N), dim=1)
    first, again = (
        [target.draw_rows(generator)[0] for _ in range(3)]
        for generator in (torch.Generator().manual_seed(s) for s in (5, 5))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert all(len(set(rows.tolist())) == 8 for rows in first)
    every = made(batch_size=N)
    assert torch.equal(every.draw_rows(torch.Generator())[0], X)


class Squares(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return X[i], Y[i]


def memory_map(folder: Any) -> tuple[np.ndarray, np.ndarray]:
    np.save(folder / "x.npy", X.numpy().astype(">f8"))
    np.save(folder / "y.npy", Y.numpy())
    return np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")


@pytest.mark.parametrize("kind", ["arrays", "map", "dataset", "tensors", "loader", "plain"])
def test_data_may_be_arrays_maps_datasets_and_loaders(kind, tmp_path):
    loader = DataLoader(Squares(), batch_size=8, shuffle=True)
    data = {
        "arrays": lambda: (X.numpy(), Y.tolist()),
        "map": lambda: memory_map(tmp_path),
        "dataset": Squares,
        "tensors": lambda: TensorDataset(X, Y),
        "loader": lambda: loader,
        "plain": lambda: DataLoader(TensorDataset(X, Y), batch_size=8),
    }[kind]()
    own = {"batch_size": None} if kind in ("loader", "plain") else {}
    target = made(data=data, **own)
    assert target.batch_size == 8
    torch.testing.assert_close(target.log_prob(points()), whole(points()))
    rows = target.draw_rows(torch.Generator().manual_seed(0))
    expected = made().draw_rows(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(rows, expected, strict=True))


def test_a_memory_map_is_read_where_it_is_asked_for(tmp_path):
    x, y = memory_map(tmp_path)
    rows, _ = read_rows((x, y))
    assert rows.parts[0] is x
    assert rows.take(np.array([3, 9]))[0].dtype == DTYPE


def test_real_rows_get_the_dtype_of_z_and_others_stay():
    seen = []

    def likelihood(w, x, count, flag):
        seen.append((x.dtype, count.dtype, flag.dtype))
        return -((x - w) ** 2) * count

    data = (X[:, 0].float(), np.ones(N, np.int64), torch.ones(N, dtype=torch.bool))
    made(likelihood, data, dim=1).log_prob(points(dim=1))
    assert set(seen) == {(DTYPE, torch.int64, torch.bool)}


PRIORS = {"w": dist.Normal(torch.zeros(P, dtype=DTYPE), 1.0).to_event(1), "sigma": dist.Gamma(2, 2)}


def by_name(x: Tensor, w: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    return -0.5 * ((y - x @ w) / sigma) ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)


def by_dict(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return by_name(x, values["w"], y, values["sigma"])


@pytest.mark.parametrize("likelihood", [by_name, by_dict])
def test_named_parameters_are_those_of_a_named_density(likelihood):
    target = RowsTarget(None, likelihood, (X, Y), parameters=PRIORS, batch_size=8)
    plain = NamedDensity(lambda w, sigma: by_name(X, w, Y, sigma).sum(), PRIORS)
    z = points(dim=4)
    torch.testing.assert_close(target.log_prob(z), plain.log_prob(z))
    assert target.named and list(target.constrain(z)) == ["w", "sigma"]
    assert target.without_prior == () and target.prior_draws(4, 0).shape == (4, 4)
    torch.testing.assert_close(target.unconstrain(target.constrain(z)), z)


def test_a_prior_beside_named_ones_and_a_target_as_prior():
    flat = {"w": P, "sigma": dist.Gamma(2, 2)}
    target = RowsTarget(lambda w, sigma: log_prior(w), by_name, (X, Y), parameters=flat)
    plain = NamedDensity(lambda w, sigma: log_prior(w) + by_name(X, w, Y, sigma).sum(), flat)
    torch.testing.assert_close(target.log_prob(points(dim=4)), plain.log_prob(points(dim=4)))
    assert target.batch_size == N
    of_target = RowsTarget(LogDensity(log_prior, dim=P), of_point, (X, Y))
    assert of_target.dim == P
    torch.testing.assert_close(of_target.log_prob(points()), whole(points()))


def test_no_trace_keeps_a_copy_of_all_rows():
    target = made()
    starts = points(2)
    target.log_prob(starts)
    with pytest.raises(TraceError):
        traced(lambda z: (target.log_prob(z),), [(starts,), (starts + 1,)])


def test_points_without_a_finite_coordinate_and_one_with():
    z = points(2)
    z[0] = torch.nan
    assert made().log_prob(z).isnan().tolist() == [True, False]
    assert bool(made().log_prob(z[:1]).isnan().all())


def test_fewer_points_are_affordable_the_more_rows_there_are():
    target = made()
    assert affordable(target, 10_000) == 10_000
    target.rows = 10**6
    assert affordable(target, 10_000) == 1_000
    target.rows = 10**9
    assert affordable(target, 10_000) == 200 and affordable(target, 50) == 50
    assert affordable(LogDensity(log_prior, dim=2), 10_000) == 10_000


def test_work_counts_every_row():
    few, many = (
        numbers_per_point(made(data=(X.repeat(k, 1), Y.repeat(k))), points()) for k in (20, 200)
    )
    assert 9 < many / few < 11


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


REFUSED = {
    "lengths": (lambda: made(data=(X, Y[:-1])), "differing lengths: 57 rows, 56 rows"),
    "batch too large": (lambda: made(batch_size=N + 1), "from 1 to the number of rows, 57; got 58"),
    "batch of none": (lambda: made(batch_size=0), "batch_size= must be an integer from 1"),
    "batch of a half": (lambda: made(batch_size=0.5), "batch_size= must be an integer from 1"),
    "empty": (lambda: made(data=(X[:0], Y[:0])), "data= is empty"),
    "no data": (lambda: made(data=()), "an empty tuple"),
    "words": (lambda: made(data=np.array(["a", "b"])), "no rows of real numbers"),
    "masked": (lambda: made(data=np.ma.array([1.0, 2.0], mask=[0, 1])), "mask"),
    "stream": (lambda: made(data=Endless()), "no numbers to draw from"),
    "no dim": (lambda: made(dim=None), "needs the number of coordinates, dim="),
    "dim twice": (
        lambda: RowsTarget(LogDensity(log_prior, dim=2), of_point, (X, Y), dim=3),
        "dim=3 was given, and log_prior has dim=2",
    ),
    "dim of none": (lambda: made(dim=0), "dim= must be an integer of at least 1; got 0"),
    "no prior": (lambda: RowsTarget(None, of_point, (X, Y), dim=3), "give a function of z"),
    "prior of a kind": (lambda: RowsTarget("flat", of_point, (X, Y), dim=3), "got str"),
    "no function": (lambda: RowsTarget(log_prior, 3.0, (X, Y), dim=3), "got float"),
    "other names": (
        lambda: RowsTarget(None, lambda w, s, x, y: x, (X, Y), parameters=PRIORS),
        "takes w, s, x, y, and parameters= names w, sigma",
    ),
    "too many parts": (
        lambda: RowsTarget(None, by_name, (X, Y, Y), parameters=PRIORS).check(),
        "takes x, y beside the parameters, and data= has 3 parts",
    ),
    "a sum": (
        lambda: made(lambda w, x, y: of_point(w, x, y).sum()).check(),
        r"must return one value a row.* returned shape \(\).*Leave the sum",
    ),
    "an error": (lambda: made(lambda w, x, y: x @ x).check(), "it raised RuntimeError"),
    "a row that is missing": (
        lambda: made(data=(X, torch.where(torch.arange(N) == 41, torch.nan, Y))).check(),
        "the log-likelihood of row 41 is NaN or inf there",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_by_name(case):
    do, message = REFUSED[case]
    with pytest.raises(TargetError, match=message):
        do()


def test_refuses_a_coordinate_on_which_nothing_depends():
    flat = {"w": 1, "other": 1}
    likelihood = lambda w, other, y: -((y - w) ** 2)  # noqa: E731
    with pytest.raises(TargetError, match="improper: it does not depend on other"):
        RowsTarget(None, likelihood, Y, parameters=flat).check()


def test_items_of_a_dataset_must_become_rows():
    class Words(Squares):
        def __getitem__(self, i: int) -> Any:
            return {"x": X[i]}

    with pytest.raises(TargetError, match="must become tensors with one row for each item"):
        made(data=Words()).check()
