"""The folder of an export: ours is replaced, nobody else's is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thalweg.errors import ConfigError
from thalweg.track.transfer.write_folder import ExportFolder


def fill(folder: Path, files: dict[str, bytes], *, project: str = "p", form: str = "csv") -> None:
    with ExportFolder(folder, project=project, form=form, files=list(files)) as opened:
        for name, content in files.items():
            with opened.replace(name) as file:
                file.write(content)


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "thalweg-export.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_what_is_not_written_again_goes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    fill(out, {"a": b"1", "sub/b": b"2", "sub/c": b"3"})
    (out / "theirs.txt").write_bytes(b"x")
    fill(out, {"a": b"4", "sub/c": b"5"})
    assert contents(out) == {"a": b"4", "sub/c": b"5", "theirs.txt": b"x"}
    fill(out, {"a": b"6"})
    assert contents(out) == {"a": b"6", "theirs.txt": b"x"}
    assert not (out / "sub").exists()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    fill(tmp_path, {"a": b"1"})
    assert contents(tmp_path) == {"a": b"1"}


@pytest.mark.parametrize("name", ["points.csv", "x.txt"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(ConfigError, match=rf"holds something else \({name}\); name a new folder, or an empty one"):
        fill(tmp_path, {"points.csv": b"1"})
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_another_export_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"a": b"1"})
    with pytest.raises(ConfigError, match="holds an export of 'p' to csv; name another folder, or remove it"):
        fill(tmp_path, {"a": b"2"}, project="q")
    with pytest.raises(ConfigError, match="holds an export of 'p' to csv"):
        fill(tmp_path, {"a": b"2"}, form="parquet")
    assert contents(tmp_path) == {"a": b"1"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"a": b"1"})
    (tmp_path / "b").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"b is there, and is not of an earlier export; move it"):
        fill(tmp_path, {"a": b"2", "b": b"2"})
    assert contents(tmp_path) == {"a": b"1", "b": b"precious"}
    file = tmp_path / "b"
    with pytest.raises(ConfigError, match=r"--out .*b is a file; name a folder"):
        fill(file, {"a": b"2"})


def test_an_export_that_was_killed_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def killed() -> None:
        with ExportFolder(out, project="p", form="csv", files=["a", "b"]) as opened:
            with opened.replace("a") as file:
                file.write(b"1")
            with opened.replace("b") as file:
                file.write(b"2")
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert contents(out) == {"a": b"1"}
    # As a kill leaves it: half a file, under another name.
    (out / "b.partial").write_bytes(b"half")
    fill(out, {"a": b"3", "b": b"4"})
    assert contents(out) == {"a": b"3", "b": b"4"}


def test_a_marker_cannot_make_us_remove_other_files(tmp_path: Path) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    precious.write_bytes(b"x")
    fill(out, {"a": b"1"})
    marker = json.loads((out / "thalweg-export.json").read_text())
    marker["files"] += ["../precious", str(precious), ""]
    (out / "thalweg-export.json").write_text(json.dumps(marker))
    fill(out, {"b": b"2"})
    assert precious.read_bytes() == b"x"
    assert contents(out) == {"b": b"2"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', "\x00"])
def test_a_marker_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "thalweg-export.json").write_text(text)
    with pytest.raises(ConfigError, match=r"thalweg-export.json cannot be read: .*Name a new folder"):
        fill(tmp_path, {"a": b"1"})
