"""Files that are damaged, edited or not what they say: a FitError, or the very fit, always."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nfvi import NFVI, Checkpoint, DensityFit, Fit, FitError, MixtureGuide
from nfvi.flows import Flow
from nfvi.utils.files import read_file
from tests.damage import contents, edited, sites_of, written

FEW, MANY = 60, 20_000
"""Of each kind of file: in a run of all tests, and of those marked slow."""
HOW_OFTEN = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
KINDS = ("fit", "mixture", "density", "checkpoint", "data_checkpoint")
STORED = {"mixture": "fit", "data_checkpoint": "checkpoint"}
OTHERS = (
    "the checkpoint was written with optimizer=",
    "the checkpoint holds the records of callbacks",
    "these are not the data of the checkpoint",
)
# What stands in a header after an edit.
STRANGE = (
    *(None, True, False, 0, 1, -1, 2, 3, 10**6, 10**400, 1.5, -0.5),
    *(
        float("nan"),
        float("inf"),
        "",
        "x",
        "planar",
        "float16",
        "auto",
        "maf(hidden=[12000,12000])",
    ),
    *("planar*9999", [], [1], [[1, 2]], {}, {"a": 1}),
)


def two_modes(z: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(-0.5 * (z - 4).square().sum(-1), -0.5 * (z + 4).square().sum(-1))


def rows() -> torch.Tensor:
    return torch.randn(60, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind."""
    made = {kind: tmp_path_factory.mktemp("files") / kind for kind in KINDS}
    keep = Checkpoint(made["checkpoint"], every=20)
    options: dict[str, Any] = {"dim": 2, "n_mc": 16, "steps": 30, "anneal": "adaptive"}
    NFVI("planar*2-perm", seed=1).fit(
        two_modes, restarts=2, callbacks=[keep], init="gaussian", **options
    ).save(made["fit"])
    mixed = NFVI("loc", seed=1).fit(
        two_modes, dim=2, steps=300, n_mc=16, restarts=4, combine="mixture", lr=0.1
    )
    assert isinstance(mixed.guide, MixtureGuide)
    mixed.save(made["mixture"])
    NFVI("maf(hidden=[8])-perm-spline", seed=1).fit_data(
        rows(), epochs=3, callbacks=[Checkpoint(made["data_checkpoint"], every=2)]
    ).save(made["density"])
    return made


def use(kind: str, path: Path) -> None:
    """Read a file and do what its reader would do next."""
    if kind == "density":
        density = DensityFit.load(path)
        assert str(density) and density.sample(2).isfinite().all()
    elif kind.endswith("checkpoint"):
        nfvi = NFVI.resume(path)
        with warnings.catch_warnings():
            # An edited count of draws, or learning rate, makes another fit, and that may be poor.
            warnings.simplefilter("ignore")
            nfvi.fit(two_modes, dim=2) if kind == "checkpoint" else nfvi.fit_data(rows())
    else:
        fit = Fit.load(path)
        assert str(fit) and fit.sample(2).shape == (2, 2)


def same(kind: str, path: Path, original: Path) -> bool:
    """Whether a file gives exactly what another one does."""
    stored = STORED.get(kind, kind)
    (a, header_a), (b, header_b) = read_file(path, stored), read_file(original, stored)
    equal = a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].nan_to_num(), b[name].nan_to_num())
        for name in a
    )
    return equal and json.dumps(header_a) == json.dumps(header_b)


def flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def overwrite(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at : at + rng.randrange(1, 40)] = rng.randbytes(rng.randrange(40))


def zero(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    stop = min(at + rng.randrange(1, 600), len(content))
    content[at:stop] = bytes(stop - at)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


@pytest.mark.parametrize("count", HOW_OFTEN)
@pytest.mark.parametrize("harm", [flip, overwrite, zero, cut])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_never_read_without_a_word(
    files: dict[str, Path],
    tmp_path: Path,
    kind: str,
    harm: Callable[[bytearray, random.Random], None],
    count: int,
) -> None:
    whole, rng, path = files[kind].read_bytes(), random.Random(7), tmp_path / "damaged"
    for _ in range(count // 4):
        content = bytearray(whole)
        harm(content, rng)
        path.write_bytes(content)
        try:
            read_file(path, STORED.get(kind, kind))
        except FitError as error:
            assert path.name in str(error)
            continue
        # What was overwritten may have been the same before, or blanks that fill the header up.
        assert same(kind, path, files[kind])


def edit(header: dict[str, Any], rng: random.Random) -> None:
    """Change, remove or add one or two values anywhere in a header."""
    for _ in range(rng.choice((1, 1, 2))):
        *way, last = rng.choice(sites_of(header)[1:])
        holder: Any = header
        for key in way:
            holder = holder[key]
        if (chance := rng.random()) < 0.2:
            del holder[last]
        elif chance < 0.25 and isinstance(holder, dict):
            holder["another"] = copy.deepcopy(rng.choice(STRANGE))
        else:
            holder[last] = copy.deepcopy(rng.choice(STRANGE))


@pytest.mark.parametrize("count", HOW_OFTEN)
@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_header_gives_a_fit_or_a_fit_error(
    files: dict[str, Path], tmp_path: Path, kind: str, count: int
) -> None:
    """As version 0.1 wrote files, whose digest cannot tell."""
    (tensors, header), rng = contents(files[kind]), random.Random(11)
    for _ in range(count):
        changed = json.loads(json.dumps(header))
        edit(changed, rng)
        path = written(tmp_path / "edited", tensors, changed)
        try:
            use(kind, path)
        except FitError as error:
            assert str(error)
        except ValueError as error:
            # Optimiser and data are compared with those at hand, which are not in the file.
            assert any(words in str(error) for words in OTHERS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_header_does_not_fit_its_digest(
    files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    content = files[kind].read_bytes()
    changed = content.replace(b'\\"wall_time\\": ', b'\\"wall_time\\": 1')
    assert changed != content
    size = int.from_bytes(content[:8], "little") + len(changed) - len(content)
    (tmp_path / "edited").write_bytes(size.to_bytes(8, "little") + changed[8:])
    with pytest.raises(FitError, match=r"'.*edited' is damaged.*SHA-256.*another copy"):
        read_file(tmp_path / "edited", STORED.get(kind, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_digest_is_damage(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    content = files[kind].read_bytes().replace(b"nfvi_sha256", b"nfvi_sha257")
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(FitError, match="is damaged"):
        read_file(tmp_path / "other", STORED.get(kind, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_version_0_1_are_read(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """They have no digest, and no header of the guide."""
    old = edited(files[kind], tmp_path / "old", lambda header: None)
    use(kind, old)
    if kind == "fit":
        older = edited(old, tmp_path / "older", lambda header: header.pop("guide"))
        a, b = (Fit.load(path).sample(5, seed=0) for path in (files[kind], older))
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_is_held_against_the_formula(
    files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    tensors, header = contents(files[kind])
    changes: tuple[Callable[[torch.Tensor], torch.Tensor | None], ...] = (
        lambda t: None,
        lambda t: torch.cat([t, t]) if t.dim() else t.reshape(1),
        lambda t: t.to(torch.int32),
    )
    optional = {"history.n_mc", "weights", "scores", "rates"}
    for name in tensors:
        if name in optional or name.startswith(("control.", "callback.", "optimizer.")):
            continue
        for change in changes:
            new = change(tensors[name])
            if new is not None and new.shape == tensors[name].shape and not new.numel():
                continue
            others = {key: value for key, value in tensors.items() if key != name}
            path = written(
                tmp_path / "f", others if new is None else others | {name: new}, header, signed=True
            )
            with pytest.raises(FitError, match=r"'.*f' is not a complete"):
                use(kind, path)


@pytest.mark.parametrize(
    "formula", ["maf(hidden=[12000,12000])", "maf(hidden=[100000,100000])*50", "planar*9999"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_large_is_made_for_a_small_file(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    formula: str,
) -> None:
    def change(header: dict[str, Any]) -> None:
        header.get("settings", header)["formula"] = formula
        if "guide" in header:
            parts = header["guide"].get("components", [header["guide"]])
            parts[0]["formula"] = formula

    path = edited(files[kind], tmp_path / "large", change, signed=True)
    drawn = []
    noise = Flow.noise

    def counted(self: Flow, *shape: int) -> torch.Tensor:
        made = noise(self, *shape)
        drawn.append(made)
        return made

    monkeypatch.setattr(Flow, "noise", counted)
    with pytest.raises(FitError, match=r"'.*large' is not a complete .*(its formula|its tensor)"):
        use(kind, path)
    assert all(made.is_meta for made in drawn) and len(drawn) < 100
