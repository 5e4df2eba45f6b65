"""Info pickles: hostile ones are refused by name, honest ones give the frames that were written."""

from __future__ import annotations

import codecs
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as numpy_format

from sparse3d.datasets import read_mmdet3d_infos
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS, DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.plain_pickle import UnsafePickleError, load_plain_pickle
from sparse3d.structures import CameraImage, Frame, LidarScan
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "infos.pkl"
    path.write_bytes(content)
    return path


# -- plain pickles ----------------------------------------------------------------------------------------------------

PLAIN = {
    "none": None,
    "numbers": [1, -(2**70), 2.5, float("inf"), True],
    "text": ["", "ü", b"", b"\x00\xff"],
    "containers": ({"a": [()]}, {1, 2}, frozenset({"x"})),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data(tmp_path: Path, protocol: int) -> None:
    assert load_plain_pickle(_write(tmp_path, pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.array(7, dtype=np.uint8),
        np.zeros((0, 4), dtype=np.float32),
        np.array([1.5, -2], dtype=">f4"),
        np.array([True, False]),
        np.array(["car", "ü"]),
        np.array([b"car"]),
        np.arange(10)[::2],
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    content = pickle.dumps([array, array], protocol)
    for found, expected in zip(load_plain_pickle(_write(tmp_path, content)), pickle.loads(content), strict=True):
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars(tmp_path: Path, protocol: int) -> None:
    scalars = [np.float64(0.1), np.float32(0.1), np.int64(-3), np.bool_(True), np.str_("car"), np.uint8(255)]
    found = load_plain_pickle(_write(tmp_path, pickle.dumps(scalars, protocol)))
    assert found == scalars
    assert [type(value) for value in found] == [type(value) for value in scalars]


@pytest.mark.parametrize("core", ["core", "_core"])
def test_both_numpy_generations(tmp_path: Path, core: str) -> None:
    text = pickle.dumps([np.float64(0.5), np.arange(3)], protocol=0)
    renamed = text.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", f"numpy.{core}.".encode())
    number, array = load_plain_pickle(_write(tmp_path, renamed))
    assert number == 0.5
    assert array.tolist() == [0, 1, 2]


# -- hostile pickles --------------------------------------------------------------------------------------------------


class _Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class _Record:
    pass


HOSTILE = {
    "os.system": (_Call(os.system, "true"), rf"{os.system.__module__}\.system"),
    "eval": (_Call(eval, "1"), r"builtins\.eval"),
    "getattr": (_Call(getattr, "text", "upper"), r"builtins\.getattr"),
    "nested": ({"metainfo": [({"deep": _Call(exec, "")},)]}, r"builtins\.exec"),
    "numpy function": (_Call(np.load, "x"), r"numpy\.load"),
    "class": (_Record(), r"_Record|_reconstructor"),
    "container class": (OrderedDict(a=1), r"collections\.OrderedDict"),
    "array of objects": (np.array([_Record()], dtype=object), r"numpy dtype 'O8'|_Record|_reconstructor"),
    "array of plain objects": (np.array([None], dtype=object), "numpy dtype 'O8'"),
    "record array": (np.zeros(2, dtype=[("a", "f4")]), "numpy dtype 'V4'"),
    "codecs": (_Call(codecs.encode, "x", "rot13"), "encoding 'rot13'"),
    "bytearray": (bytearray(b"x"), r"builtins\.bytearray"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(tmp_path: Path, name: str, protocol: int) -> None:
    payload, message = HOSTILE[name]
    message = message.replace("builtins", "(builtins|__builtin__)")  # as protocols before 3 call it
    path = _write(tmp_path, pickle.dumps(payload, protocol))
    with pytest.raises(UnsafePickleError, match=rf"infos\.pkl: refused to .*({message})"):
        load_plain_pickle(path)


def test_nothing_runs(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = _write(tmp_path, pickle.dumps(_Call(os.mkdir, str(trace))))
    with pytest.raises(UnsafePickleError, match="mkdir"):
        load_plain_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cnumpy\ndtype.__class__\n.", r"numpy\.dtype\.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", r"numpy\.ndarray\.dumps"),
        (b"Pan object\n.", "the external object 'an object'"),
        (b"cnumpy\ndtype\n}b.", "change a function"),
        (b"cnumpy.core.multiarray\nscalar\n(N}tb.", "change a function"),
    ],
    ids=["dotted name", "dotted stack name", "persistent id", "set state", "set attributes"],
)
def test_hostile_streams(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UnsafePickleError, match=message):
        load_plain_pickle(_write(tmp_path, content))


def _float_array_with_dtype_state(state: tuple) -> bytes:
    """A pickle of `float64[1]` whose dtype is given another state: numpy itself would take it."""
    dtype = _WithState(np.dtype, ("f8", False, True), state)
    array = _WithState(np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), dtype, False, b"\x01" * 8))
    return pickle.dumps(array, protocol=2)


class _WithState:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def test_dtype_flags_are_ignored(tmp_path: Path) -> None:
    """A dtype that claims to hold references (flags 63) would make numpy follow the bytes as pointers."""
    found = load_plain_pickle(_write(tmp_path, _float_array_with_dtype_state((3, "<", None, None, None, -1, -1, 63))))
    assert found.dtype == np.dtype("<f8")
    assert not found.dtype.hasobject
    assert found[0] == struct.unpack("<d", b"\x01" * 8)[0]


def test_dtype_with_fields(tmp_path: Path) -> None:
    state = (3, "<", None, ("a",), {"a": ("f8", 1000)}, 8, 1, 0)
    with pytest.raises(UnsafePickleError, match="numpy dtype with fields"):
        load_plain_pickle(_write(tmp_path, _float_array_with_dtype_state(state)))


def test_array_longer_than_its_bytes(tmp_path: Path) -> None:
    dtype = _WithState(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))
    array = _WithState(np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (9,), dtype, False, b"\x01" * 8))
    with pytest.raises(ValueError, match="no readable pickle"):
        load_plain_pickle(_write(tmp_path, pickle.dumps(array, protocol=2)))


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", pickle.dumps(PLAIN)[:-5]])
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"infos\.pkl: no readable pickle"):
        load_plain_pickle(_write(tmp_path, content))


def test_no_numpy_file_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no readable pickle"):
        load_plain_pickle(_write(tmp_path, numpy_format.magic(1, 0) + b"\x00" * 32))


# -- infos ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0103"]), "scene-0103", SYNTH))


def _info(frame: Frame, folders: bool) -> dict[str, Any]:
    """What mmdetection3d's converter writes for a frame; sweeps with or without the folder of their file."""
    info = {
        "token": frame.token,
        "timestamp": frame.timestamp / 1e6,
        "ego2global": frame.ego2global.astype(np.float32).tolist(),
        "lidar_points": {
            "lidar_path": os.path.basename(frame.lidar.path),
            "num_pts_feats": 5,
            "lidar2ego": frame.lidar2ego.astype(np.float32).tolist(),
        },
        "images": {camera.name: _image(camera) for camera in frame.cameras},
        "instances": [_instance(frame, row) for row in range(len(frame.annotations))],
    }
    return {**info, "lidar_sweeps": [_sweep(sweep, folders) for sweep in frame.sweeps]} if frame.sweeps else info


def _image(camera: CameraImage) -> dict[str, Any]:
    return {
        "img_path": os.path.basename(camera.path),
        "cam2img": camera.intrinsic.tolist(),
        "cam2ego": camera.cam2ego.astype(np.float32),
        "lidar2cam": camera.lidar2cam.astype(np.float32).tolist(),
        "timestamp": camera.timestamp / 1e6,
        "width": 400,
        "height": 225,
    }


def _sweep(sweep: LidarScan, folders: bool) -> dict[str, Any]:
    return {
        "timestamp": sweep.timestamp / 1e6,
        "lidar_points": {
            "lidar_path": sweep.path if folders else os.path.basename(sweep.path),
            "lidar2sensor": np.linalg.inv(sweep.lidar2key).tolist(),
        },
    }


def _instance(frame: Frame, row: int) -> dict[str, Any]:
    annotations = frame.annotations
    name = CATEGORY_TO_CLASS.get(annotations.categories[row])
    return {
        "bbox_3d": annotations.boxes[row, :7].tolist(),
        "bbox_label_3d": DETECTION_CLASSES.index(name) if name else -1,
        "velocity": (annotations.boxes[row, 7:] if row else np.full(2, np.nan)).tolist(),
        "num_lidar_pts": annotations.num_lidar_points[row],
        "num_radar_pts": annotations.num_radar_points[row],
    }


def _contents(frames: list[Frame], folders: bool = True) -> dict[str, Any]:
    categories = {name: label for label, name in enumerate(DETECTION_CLASSES)}
    metainfo = {"dataset": "nuscenes", "version": "v1.0-mini", "info_version": "1.1", "categories": categories}
    return {"metainfo": metainfo, "data_list": [_info(frame, folders) for frame in frames]}


@pytest.mark.parametrize("folders", [False, True])
def test_infos_give_the_frames(tmp_path: Path, frames: list[Frame], folders: bool) -> None:
    found = read_mmdet3d_infos(_write(tmp_path, pickle.dumps(_contents(frames, folders))), SYNTH)
    assert [frame.token for frame in found] == [frame.token for frame in frames]
    for one, other in zip(found, frames, strict=True):
        assert (one.timestamp, one.lidar.timestamp) == (other.timestamp, other.lidar.timestamp)
        _assert_same_scans(one, other)
        _assert_same_cameras(one, other)
        _assert_same_annotations(one, other)


def _assert_same_scans(found: Frame, expected: Frame) -> None:
    assert found.lidar.path == expected.lidar.path
    np.testing.assert_allclose(found.lidar2global, expected.lidar2global, atol=1e-4)
    assert [sweep.path for sweep in found.sweeps] == [sweep.path for sweep in expected.sweeps]
    assert [sweep.timestamp for sweep in found.sweeps] == [sweep.timestamp for sweep in expected.sweeps]
    for one, other in zip(found.sweeps, expected.sweeps, strict=True):
        np.testing.assert_allclose(one.lidar2key, other.lidar2key, atol=1e-12)


def _assert_same_cameras(found: Frame, expected: Frame) -> None:
    for one, other in zip(found.cameras, expected.cameras, strict=True):
        for name in ("name", "path", "timestamp", "width", "height"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(one.intrinsic, other.intrinsic)
        np.testing.assert_allclose(one.lidar2cam, other.lidar2cam, atol=1e-6)
        np.testing.assert_allclose(one.ego2global, other.ego2global, atol=1e-3)


def _assert_same_annotations(found: Frame, expected: Frame) -> None:
    one, other = found.annotations, expected.annotations
    assert list(one.categories) == [CATEGORY_TO_CLASS.get(category, "other") for category in other.categories]
    assert "other" in one.categories
    np.testing.assert_array_equal(one.boxes[1:], other.boxes[1:])
    assert np.isnan(one.boxes[0, 7:]).all()
    assert np.isnan(one.global_velocities[0]).all()
    np.testing.assert_array_equal(one.num_lidar_points, other.num_lidar_points)
    np.testing.assert_allclose(one.global_centers, other.global_centers, atol=1e-3)
    # The file keeps neither roll and pitch nor the vertical part of a velocity; the sensor is tilted by about 0.01 rad.
    dots = np.abs((one.global_rotations * other.global_rotations).sum(axis=1))
    np.testing.assert_allclose(dots, 1, atol=1e-3)
    np.testing.assert_allclose(one.global_velocities[1:], other.global_velocities[1:], atol=2e-3)


def test_early_sweeps_follow_from_their_poses(tmp_path: Path, frames: list[Frame]) -> None:
    contents = _contents(frames[1:2])
    for sweep, scan in zip(contents["data_list"][0]["lidar_sweeps"], frames[1].sweeps, strict=True):
        del sweep["lidar_points"]["lidar2sensor"]
        sweep["lidar_points"]["lidar2ego"] = frames[1].lidar2ego.tolist()
        sweep["ego2global"] = (frames[1].lidar2global @ scan.lidar2key @ np.linalg.inv(frames[1].lidar2ego)).tolist()
    contents["data_list"][0]["ego2global"] = frames[1].ego2global.tolist()
    contents["data_list"][0]["lidar_points"]["lidar2ego"] = frames[1].lidar2ego.tolist()
    (found,) = read_mmdet3d_infos(_write(tmp_path, pickle.dumps(contents)), SYNTH)
    for one, other in zip(found.sweeps, frames[1].sweeps, strict=True):
        np.testing.assert_allclose(one.lidar2key, other.lidar2key, atol=1e-9)


def test_files_beside_the_pickle(tmp_path: Path, frames: list[Frame]) -> None:
    name = os.path.basename(frames[0].lidar.path)
    (tmp_path / name).write_bytes(b"")
    path = _write(tmp_path, pickle.dumps(_contents(frames[:1])))
    (flat,) = read_mmdet3d_infos(path, tmp_path)
    assert flat.lidar.path == str(tmp_path / name)
    (sorted_away,) = read_mmdet3d_infos(path, SYNTH)
    assert sorted_away.lidar.path == frames[0].lidar.path


def test_not_annotated(tmp_path: Path, frames: list[Frame]) -> None:
    contents = _contents(frames[:2])
    del contents["data_list"][0]["instances"]
    contents["data_list"][1]["instances"] = []
    first, second = read_mmdet3d_infos(_write(tmp_path, pickle.dumps(contents)), SYNTH)
    assert first.annotations is None
    assert second.annotations.boxes.shape == (0, 9)


def test_early_class_list_and_missing_version(tmp_path: Path, frames: list[Frame]) -> None:
    contents = _contents(frames[:1])
    contents["metainfo"] = {"CLASSES": DETECTION_CLASSES}
    with pytest.warns(UserWarning, match="does not state its info_version"):
        (found,) = read_mmdet3d_infos(_write(tmp_path, pickle.dumps(contents)), SYNTH)
    assert found.annotations.categories[0] in DETECTION_CLASSES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda contents: {"infos": [], "metadata": {}}, r"no info file of mmdetection3d v1\.1"),
        (lambda contents: [1, 2], r"no info file of mmdetection3d v1\.1"),
        (lambda contents: contents["metainfo"].update(info_version="2.0"), r"info_version 2\.0, expected 1\.1"),
        (lambda contents: contents["metainfo"].pop("categories") and None, "names no categories"),
        (lambda contents: contents["data_list"][1].pop("ego2global") and None, "entry 1: KeyError: 'ego2global'"),
        (lambda contents: contents["data_list"][0].update(ego2global=[1]), "entry 0: .*expected a 4x4 pose"),
        (lambda contents: contents["data_list"][0]["instances"][2].update(bbox_3d=[1]), "entry 0: ValueError"),
    ],
)
def test_refused_infos(tmp_path: Path, frames: list[Frame], change: Any, message: str) -> None:
    contents = _contents(frames[:2])
    contents = change(contents) or contents
    with pytest.raises(ValueError, match=message):
        read_mmdet3d_infos(_write(tmp_path, pickle.dumps(contents)), SYNTH)


def test_recorded_frame(shared: Path) -> None:
    folder = shared / "data" / "nuscenes_frame"
    (frame,) = read_mmdet3d_infos(next(folder.glob("*.pkl")), folder)
    assert os.path.isfile(frame.lidar.path)
    assert all(os.path.isfile(camera.path) for camera in frame.cameras)
    assert len(frame.annotations) == 69
    assert frame.annotations.categories.count("other") == 1
    assert np.isnan(frame.annotations.boxes[:, 7]).sum() == 2


def test_recorded_early_file(shared: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="older convention"):
        frames = read_mmdet3d_infos(shared / "data" / "nuscenes_infos" / "nus_info.pkl", tmp_path)
    assert [len(frame.sweeps) for frame in frames] == [0, 2]
    turn = frames[1].sweeps[0].lidar2key[:3, :3]
    np.testing.assert_allclose(turn, np.eye(3), atol=1e-3)
