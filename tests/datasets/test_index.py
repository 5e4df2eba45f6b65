"""The index: what comes back is what was written; files are whole or absent; versions and roots are checked."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sparse3d.datasets import FrameIndex, create, write_index
from sparse3d.datasets import index as index_module
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.index import FRAMES_PER_BATCH, merge_indexes, read_index_metadata
from sparse3d.datasets.index_schema import INDEX_VERSION
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.structures import Frame
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
METADATA = {"dataset": "nuscenes", "split": "mini_val"}


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    tables = load_tables(SYNTH / "v1.0-mini", ["scene-0103"])
    frames = list(scene_frames(tables, "scene-0103", SYNTH))
    bare = replace(frames[0], token="bare", annotations=None, sweeps=(), cameras=())
    empty = replace(frames[0], token="empty", annotations=frames[0].annotations.select(np.zeros(24, dtype=bool)))
    return [*frames, bare, empty]


@pytest.fixture
def path(tmp_path: Path, frames: list[Frame]) -> Path:
    path = tmp_path / "index.arrow"
    write_index(path, frames, METADATA, SYNTH)
    return path


def assert_same(found: Any, expected: Any) -> None:
    """Equal values of equal types, however deep."""
    assert type(found) is type(expected)
    if is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


# -- round trip -------------------------------------------------------------------------------------------------------


def test_round_trip(path: Path, frames: list[Frame]) -> None:
    index = FrameIndex(path, SYNTH)
    assert len(index) == len(frames)
    for found, expected in zip(index, frames, strict=True):
        assert_same(found, expected)


def test_negative_and_absent_rows(path: Path, frames: list[Frame]) -> None:
    index = FrameIndex(path, SYNTH)
    assert index[-1].token == frames[-1].token
    for row in (len(frames), -len(frames) - 1):
        with pytest.raises(IndexError, match=f"holds {len(frames)} frames"):
            index[row]


def test_survives_pickling(path: Path, frames: list[Frame]) -> None:
    index = pickle.loads(pickle.dumps(FrameIndex(path, SYNTH)))
    assert_same(index[2], frames[2])


def test_frames_do_not_share_memory_with_the_file(path: Path) -> None:
    index = FrameIndex(path, SYNTH)
    index[0].annotations.boxes[:] = 0
    index[0].lidar2ego[:] = 0
    assert index[0].annotations.boxes.any()
    assert index[0].lidar2ego.any()


def test_paths_follow_the_data_root(path: Path, tmp_path: Path, frames: list[Frame]) -> None:
    moved = FrameIndex(path, tmp_path)[0]
    assert Path(moved.lidar.path) == tmp_path / Path(frames[0].lidar.path).relative_to(SYNTH)
    assert str(SYNTH).encode() not in path.read_bytes()


def test_a_root_by_a_detour(tmp_path: Path, frames: list[Frame]) -> None:
    detour = SYNTH / ".." / SYNTH.name
    write_index(tmp_path / "index.arrow", frames, METADATA, detour)
    assert len(FrameIndex(tmp_path / "index.arrow", detour)) == len(frames)


def test_no_frames(tmp_path: Path) -> None:
    write_index(tmp_path / "index.arrow", [], METADATA, SYNTH)
    index = FrameIndex(tmp_path / "index.arrow", SYNTH)
    assert len(index) == 0
    with pytest.raises(IndexError):
        index[0]


def test_metadata(path: Path) -> None:
    metadata = read_index_metadata(path)
    assert metadata.items() >= METADATA.items()
    assert {"index_version", "sparse3d_version"} < set(metadata)


def test_merge_keeps_the_order(tmp_path: Path, frames: list[Frame]) -> None:
    parts = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    write_index(parts[0], frames[:1], METADATA, SYNTH)
    write_index(parts[1], frames[1:], METADATA, SYNTH)
    merge_indexes(tmp_path / "whole.arrow", parts, METADATA)
    for found, expected in zip(FrameIndex(tmp_path / "whole.arrow", SYNTH), frames, strict=True):
        assert_same(found, expected)


def test_opening_decodes_nothing(tmp_path: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20 * FRAMES_PER_BATCH + 1
    path = tmp_path / "large.arrow"
    write_index(path, (replace(frames[3], token=str(row)) for row in range(count)), METADATA, SYNTH)
    decoded: list[int] = []
    decode = index_module.decode_frame
    monkeypatch.setattr(index_module, "decode_frame", lambda *args: decoded.append(args[1]) or decode(*args))
    before = pa.total_allocated_bytes()
    index = FrameIndex(path, SYNTH)
    assert len(index) == count
    assert not decoded
    assert pa.total_allocated_bytes() - before < path.stat().st_size / 100  # mapped, not read
    assert [index[row].token for row in (0, 63, 64, count - 1)] == ["0", "63", "64", str(count - 1)]
    assert decoded == [0, 63, 0, 0]


# -- whole or absent --------------------------------------------------------------------------------------------------


def _failing(frames: list[Frame]) -> Iterator[Frame]:
    for _ in range(FRAMES_PER_BATCH):
        yield from frames
    raise RuntimeError("stopped")


def test_interrupted_writing_leaves_nothing(tmp_path: Path, frames: list[Frame]) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        write_index(tmp_path / "index.arrow", _failing(frames), METADATA, SYNTH)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_keeps_the_old_file(path: Path, frames: list[Frame]) -> None:
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stopped"):
        write_index(path, _failing(frames), METADATA, SYNTH)
    assert path.read_bytes() == before


def test_files_outside_the_root(tmp_path: Path, frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="is not below the data root"):
        write_index(tmp_path / "index.arrow", frames, METADATA, SYNTH / "v1.0-mini")


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no index; create it"):
        FrameIndex(tmp_path / "none.arrow", SYNTH)


def test_missing_root(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="if the data moved, pass its new folder"):
        FrameIndex(path, tmp_path / "gone")


def test_another_version(tmp_path: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "INDEX", replace(index_module.INDEX, version=0))
    write_index(tmp_path / "old.arrow", frames, METADATA, SYNTH)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=rf"index version 0, this sparse3d reads version {INDEX_VERSION}; create it"):
        FrameIndex(tmp_path / "old.arrow", SYNTH)


def test_foreign_arrow_file(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(str(tmp_path / "foreign.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="index version None"):
        FrameIndex(tmp_path / "foreign.arrow", SYNTH)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_damaged_file(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="no Arrow file"):
        FrameIndex(path, SYNTH)


# -- from the tables --------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the synthetic tables, without sensor files."""
    root = tmp_path / "root"
    (root / "v1.0-mini").mkdir(parents=True)
    for table in (SYNTH / "v1.0-mini").iterdir():
        (root / "v1.0-mini" / table.name).write_bytes(table.read_bytes())
    return root


def test_create(root: Path, frames: list[Frame]) -> None:
    paths = create_nuscenes_index(root, "mini")
    assert [path.name for path in paths] == ["sparse3d_mini_train.arrow", "sparse3d_mini_val.arrow"]
    assert {path.name for path in root.iterdir()} == {"v1.0-mini", *(path.name for path in paths)}
    for found, expected in zip(FrameIndex(paths[1], SYNTH), frames[:4], strict=True):
        assert_same(found, expected)


def _count_scenes(monkeypatch: pytest.MonkeyPatch, fail_at: str = "") -> list[str]:
    """Record the scenes whose frames are made; stop at ``fail_at``."""
    made: list[str] = []

    def counted(tables: Any, scene: str, root: Path) -> Iterator[Frame]:
        if scene == fail_at:
            raise KeyboardInterrupt
        made.append(scene)
        return scene_frames(tables, scene, root)

    monkeypatch.setattr(create, "scene_frames", counted)
    return made


def test_create_skips_what_is_current(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = create_nuscenes_index(root, "mini")
    made = _count_scenes(monkeypatch)
    assert create_nuscenes_index(root, "mini") == first
    assert made == []
    sample = root / "v1.0-mini" / "sample.json"
    sample.write_text(sample.read_text() + " ")
    create_nuscenes_index(root, "mini")
    assert made == ["scene-0061", "scene-0103"]


def test_create_resumes_at_the_scene(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "split_scenes", lambda split: ("scene-0061", "scene-0103"))
    made = _count_scenes(monkeypatch, fail_at="scene-0103")
    with pytest.raises(KeyboardInterrupt):
        create_nuscenes_index(root, "mini", splits=["mini_val"])
    assert not (root / "sparse3d_mini_val.arrow").exists()
    made += _count_scenes(monkeypatch)
    (path,) = create_nuscenes_index(root, "mini", splits=["mini_val"])
    assert made == ["scene-0061"]
    assert len(FrameIndex(path, root)) == 8
    assert not (root / "sparse3d_mini_val.partial").exists()


def test_create_replaces_a_damaged_index(root: Path) -> None:
    path = root / "sparse3d_mini_val.arrow"
    path.write_bytes(b"half")
    create_nuscenes_index(root, "mini", splits=["mini_val"])
    assert len(FrameIndex(path, root)) == 4


def test_create_elsewhere(root: Path, tmp_path: Path) -> None:
    (path,) = create_nuscenes_index(root, "v1.0-mini", splits=["mini_val"], out=tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "sparse3d_mini_val.arrow"


def test_create_without_a_split_of_the_version(root: Path) -> None:
    scene = root / "v1.0-mini" / "scene.json"
    scene.write_text(scene.read_text().replace("scene-0103", "scene-1094"))
    assert [path.name for path in create_nuscenes_index(root, "mini")] == ["sparse3d_mini_train.arrow"]
    assert [path.name for path in create_nuscenes_index(root, "mini")] == ["sparse3d_mini_train.arrow"]
    with pytest.raises(ValueError, match="no scene of mini_val"):
        create_nuscenes_index(root, "mini", splits=["mini_val"])


def test_create_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"v1\.0-mini has the splits mini_train, mini_val, got val"):
        create_nuscenes_index(root, "mini", splits=["val"])
    with pytest.raises(FileNotFoundError, match="the root must be the folder that holds"):
        create_nuscenes_index(tmp_path, "trainval")
