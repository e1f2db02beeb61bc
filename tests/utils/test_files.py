"""Files: whole or not at all, and a clear word on what cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nfvi.errors import FitError
from nfvi.utils.files import VERSION, over, read_file, under, write_file

TENSORS = {
    "a": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "b": torch.tensor(3.5),
    "empty": torch.empty(0),
    "flags": torch.tensor([True, False]),
}
VALUES = {"name": "ä ≤ b", "nan": float("nan"), "inf": float("-inf"), "list": [1, [2, None]]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "some.safetensors"
    write_file(made, "fit", TENSORS, VALUES)
    return made


class TestRoundTrip:
    def test_tensors_and_values(self, path: Path) -> None:
        tensors, values = read_file(path, "fit")
        assert set(tensors) == set(TENSORS)
        for name, value in TENSORS.items():
            assert torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype
        assert values["name"] == VALUES["name"] and values["list"] == VALUES["list"]
        assert values["nan"] != values["nan"] and values["inf"] == VALUES["inf"]
        assert (values["kind"], values["version"]) == ("fit", VERSION)

    def test_tensors_that_share_memory_or_have_strides(self, tmp_path: Path) -> None:
        base = torch.arange(12.0).reshape(3, 4)
        views = {"t": base.T, "row": base[1], "step": base[:, ::2], "all": base}
        write_file(tmp_path / "f", "fit", views, {})
        tensors, _ = read_file(tmp_path / "f", "fit")
        for name, value in views.items():
            assert torch.equal(tensors[name], value)

    def test_path_as_text(self, path: Path) -> None:
        assert read_file(str(path), "fit")[1]["kind"] == "fit"

    @pytest.mark.cuda
    def test_map_location(self, tmp_path: Path) -> None:
        write_file(tmp_path / "f", "fit", {"a": torch.ones(2, device="cuda")}, {})
        assert read_file(tmp_path / "f", "fit")[0]["a"].device.type == "cpu"
        assert read_file(tmp_path / "f", "fit", "cuda")[0]["a"].device.type == "cuda"


class TestWriting:
    def test_nothing_is_left_beside_it(self, path: Path) -> None:
        write_file(path, "fit", TENSORS, VALUES)
        assert os.listdir(path.parent) == [path.name]

    def test_a_failure_leaves_the_older_file(self, path: Path) -> None:
        before = path.read_bytes()
        with pytest.raises(TypeError):
            write_file(path, "fit", TENSORS, {"code": object()})
        with pytest.raises(RuntimeError):
            write_file(path, "fit", {"meta": torch.empty(2, device="meta")}, {})
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder .*no_such_folder"):
            write_file(tmp_path / "no_such_folder" / "f", "fit", TENSORS, VALUES)

    def test_what_is_no_regular_file_is_left_alone(self, tmp_path: Path) -> None:
        """As a device would be, of which a root user could make a plain file."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(OSError, match=r"no regular file: '.*pipe'"):
            write_file(pipe, "fit", TENSORS, VALUES)
        assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]

    def test_readable_by_others_as_any_new_file_is(self, path: Path) -> None:
        other = path.parent / "plain"
        other.touch()
        assert path.stat().st_mode == other.stat().st_mode


class TestRefusals:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no file"):
            read_file(tmp_path / "none", "fit")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no file"):
            read_file(tmp_path, "fit")

    def test_cut_short_anywhere(self, path: Path) -> None:
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for size in {0, 1, 7, 8, 20, header - 1, header, header + 1, len(whole) - 1}:
            path.write_bytes(whole[:size])
            with pytest.raises(FitError, match="not a whole safetensors file"):
                read_file(path, "fit")

    @pytest.mark.parametrize(
        "content", [b"hello, this is text\n" * 10, b"\x80\x04K\x01.", b"\0" * 99]
    )
    def test_not_safetensors(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(FitError, match="safetensors"):
            read_file(tmp_path / "f", "fit")

    @pytest.mark.parametrize(
        "metadata",
        [
            None,
            {"format": "pt"},
            {"nfvi": "not json"},
            {"nfvi": "[1, 2]"},
            {"nfvi": "{}"},
            {"nfvi": '{"version": "x", "kind": "fit"}'},
        ],
    )
    def test_of_another_program(self, tmp_path: Path, metadata: dict[str, str] | None) -> None:
        save_file({"a": torch.ones(1)}, tmp_path / "f", metadata=metadata)
        with pytest.raises(FitError, match="was not written by nfvi"):
            read_file(tmp_path / "f", "fit")

    def test_newer(self, tmp_path: Path) -> None:
        header = {"nfvi": json.dumps({"version": VERSION + 1, "kind": "fit"})}
        save_file({"a": torch.ones(1)}, tmp_path / "f", metadata=header)
        with pytest.raises(FitError, match=rf"version {VERSION + 1}.*update nfvi"):
            read_file(tmp_path / "f", "fit")

    def test_another_kind(self, path: Path) -> None:
        with pytest.raises(FitError, match=r"holds a fit, not a checkpoint.*Fit\.load"):
            read_file(path, "checkpoint")

    def test_a_device_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(ValueError, match="map_location='nowhere' cannot be used here"):
            read_file(path, "fit", "nowhere")

    def test_every_message_names_the_file(self, path: Path) -> None:
        with pytest.raises(FitError, match=path.name):
            read_file(path, "checkpoint")


def test_names_with_and_without_a_prefix() -> None:
    there = over("guide.", TENSORS) | over("history.", {"a": torch.ones(2)})
    assert set(there) == {"history.a", *(f"guide.{name}" for name in TENSORS)}
    assert under("guide.", there) == TENSORS and under("looks.", there) == {}
