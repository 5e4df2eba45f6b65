"""Info files that we write: they give the frames again, and follow the rules by which mmdetection3d reads."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse3d.datasets import FrameIndex, NuScenesDataset, read_mmdet3d_infos, write_index, write_mmdet3d_infos
from sparse3d.datasets.create_infos import index_to_infos, infos_to_index
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import BICYCLE_RACK, CATEGORY_TO_CLASS, DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.plain_pickle import load_plain_pickle
from sparse3d.structures import Annotations, Frame
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
SCENES = ("scene-0061", "scene-0103")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    tables = load_tables(SYNTH / "v1.0-mini", SCENES)
    first, second, *rest = (frame for scene in SCENES for frame in scene_frames(tables, scene, SYNTH))
    return [first, replace(second, annotations=with_oddities(second.annotations)), *rest]


def with_oddities(annotations: Annotations) -> Annotations:
    """The last object becomes a bicycle rack, which has no class, and nobody knows how fast it is."""
    boxes = annotations.boxes.copy()
    boxes[-1, 7:] = np.nan
    return replace(annotations, boxes=boxes, categories=(*annotations.categories[:-1], BICYCLE_RACK))


@pytest.fixture(scope="module")
def infos(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("infos") / "nuscenes_infos_train.pkl"
    write_mmdet3d_infos(path, frames, SYNTH, "v1.0-mini")
    return path


def assert_same(found: Frame, expected: Frame) -> None:
    for name in ("token", "scene", "timestamp"):
        assert getattr(found, name) == getattr(expected, name)
    np.testing.assert_array_equal(found.lidar2global, expected.lidar2global)
    for one, other in zip((found.lidar, *found.sweeps), (expected.lidar, *expected.sweeps), strict=True):
        assert (one.path, one.timestamp, one.num_features) == (other.path, other.timestamp, other.num_features)
        np.testing.assert_allclose(one.lidar2key, other.lidar2key, atol=1e-12)
    for one, other in zip(found.cameras, expected.cameras, strict=True):
        for name in ("name", "path", "timestamp", "width", "height"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("intrinsic", "cam2ego", "lidar2cam"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_allclose(one.ego2global, other.ego2global, atol=1e-9)
    one, other = found.annotations, expected.annotations
    assert (one.categories, one.attributes) == (other.categories, other.attributes)
    for name in ("boxes", "num_lidar_points", "num_radar_points"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.global_centers, other.global_centers, atol=1e-9)


def test_they_give_the_frames_again(frames: list[Frame], infos: Path) -> None:
    for found, expected in zip(read_mmdet3d_infos(infos, SYNTH), frames, strict=True):
        assert_same(found, expected)
    assert {frame.scene for frame in frames} == set(SCENES)
    assert min(len(frame.sweeps) for frame in frames) == 0 < max(len(frame.sweeps) for frame in frames)


def test_they_hold_plain_values_only(infos: Path) -> None:
    kinds: set[type] = set()

    def collect(value: Any) -> None:
        kinds.add(type(value))
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(part)

    collect(load_plain_pickle(infos))
    assert kinds == {dict, list, str, int, float, bool}


def test_one_instance_by_hand(frames: list[Frame], infos: Path) -> None:
    row = frames[1].annotations.categories.index("vehicle.car")
    annotations = frames[1].annotations
    instance = load_plain_pickle(infos)["data_list"][1]["instances"][row]
    assert instance["bbox_3d"] == annotations.boxes[row, :7].tolist()
    assert instance["bbox_label"] == instance["bbox_label_3d"] == 0
    assert instance["num_lidar_pts"] == annotations.num_lidar_points[row]
    assert instance["bbox_3d_isvalid"] == (instance["num_lidar_pts"] + instance["num_radar_pts"] > 0)


PREFIXES = dict(pts="samples/LIDAR_TOP", sweeps="sweeps/LIDAR_TOP", CAM_FRONT="samples/CAM_FRONT")


def test_mmdetection3d_finds_the_files(frames: list[Frame], infos: Path) -> None:
    """Its rules: a folder of `data_prefix` and the name; sweeps with "samples" in their path are key frames."""
    contents = load_plain_pickle(infos)
    for entry, frame in zip(contents["data_list"], frames, strict=True):
        root = Path(SYNTH)
        assert root / PREFIXES["pts"] / entry["lidar_points"]["lidar_path"] == Path(frame.lidar.path)
        front = next(camera for camera in frame.cameras if camera.name == "CAM_FRONT")
        assert root / PREFIXES["CAM_FRONT"] / entry["images"]["CAM_FRONT"]["img_path"] == Path(front.path)
        for sweep, scan in zip(entry.get("lidar_sweeps", ()), frame.sweeps, strict=True):
            path = sweep["lidar_points"]["lidar_path"]
            folder = PREFIXES["pts"] if "samples" in path else PREFIXES["sweeps"]
            assert root / folder / path.split("/")[-1] == Path(scan.path)
    assert contents["metainfo"]["categories"] == {name: label for label, name in enumerate(DETECTION_CLASSES)}
    assert contents["metainfo"]["info_version"] == "1.1"


def test_annotations_as_mmdetection3d_stacks_them(frames: list[Frame], infos: Path) -> None:
    """It makes a column of each entry of the first instance and filters all of them by one mask."""
    for entry, frame in zip(load_plain_pickle(infos)["data_list"], frames, strict=True):
        instances = entry["instances"]
        assert all(list(instance) == list(instances[0]) for instance in instances)
        columns = {name: np.array([instance[name] for instance in instances]) for name in instances[0]}
        assert {len(column[columns["num_lidar_pts"] > 0]) for column in columns.values()} == {
            int((frame.annotations.num_lidar_points > 0).sum())
        }
        expected = [CATEGORY_TO_CLASS.get(category) for category in frame.annotations.categories]
        names = [None if label < 0 else DETECTION_CLASSES[label] for label in columns["bbox_label_3d"]]
        assert names == expected
        np.testing.assert_array_equal(columns["velocity"], frame.annotations.boxes[:, 7:])


def test_sweeps_move_points_to_the_key_frame(frames: list[Frame], infos: Path) -> None:
    entry, frame = load_plain_pickle(infos)["data_list"][1], frames[1]
    for sweep, scan in zip(entry["lidar_sweeps"], frame.sweeps, strict=True):
        lidar2sensor = np.array(sweep["lidar_points"]["lidar2sensor"])
        np.testing.assert_allclose(lidar2sensor @ scan.lidar2key, np.eye(4), atol=1e-12)
        sensor2global = np.array(sweep["ego2global"]) @ np.array(sweep["lidar_points"]["lidar2ego"])
        np.testing.assert_allclose(sensor2global, frame.lidar2global @ scan.lidar2key, atol=1e-9)


def test_names_without_a_class_are_not_mixed_up(frames: list[Frame], infos: Path, tmp_path: Path) -> None:
    """A converter lists all names of no class under the label -1; one of them must not stand for the others."""
    contents = load_plain_pickle(infos)
    contents["metainfo"]["categories"] |= {"animal": -1, BICYCLE_RACK: -1}
    for instance in contents["data_list"][0]["instances"]:
        del instance["category"]
        instance["bbox_label_3d"] = -1
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps(contents))
    assert set(read_mmdet3d_infos(path, SYNTH)[0].annotations.categories) == {"other"}


def test_unannotated_frames_stay_so(frames: list[Frame], tmp_path: Path) -> None:
    path = tmp_path / "nuscenes_infos_test.pkl"
    write_mmdet3d_infos(path, [replace(frames[0], annotations=None)], SYNTH, "v1.0-test")
    assert load_plain_pickle(path)["data_list"][0]["instances"] == []
    assert read_mmdet3d_infos(path, SYNTH)[0].annotations is None


@pytest.mark.parametrize(
    ("lidar_path", "message"),
    [
        (REPOSITORY / "scan.bin", "is not below the data root"),
        (SYNTH / "samples" / "scan.bin", "expected a file of samples/LIDAR_TOP/"),
    ],
)
def test_files_out_of_place(frames: list[Frame], tmp_path: Path, lidar_path: Path, message: str) -> None:
    frame = replace(frames[0], lidar=replace(frames[0].lidar, path=str(lidar_path)))
    path = tmp_path / "infos.pkl"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match=message):
        write_mmdet3d_infos(path, [frame], SYNTH, "v1.0-mini")
    assert [each.name for each in tmp_path.iterdir()] == ["infos.pkl"] and path.read_bytes() == b"before"


# -- our index to info files and back ---------------------------------------------------------------------------------


@pytest.fixture()
def root(frames: list[Frame], tmp_path: Path) -> Path:
    """A data root with an index, and links to the sensor files."""
    for folder in ("samples", "sweeps"):
        (tmp_path / folder).symlink_to(SYNTH / folder)
    metadata = {"dataset": "nuscenes", "version": "v1.0-mini", "split": "mini_train"}
    write_index(tmp_path / "sparse3d_mini_train.arrow", frames, metadata, SYNTH)
    return tmp_path


def test_index_to_infos_and_back(root: Path, frames: list[Frame]) -> None:
    infos = index_to_infos(root, "sparse3d_mini_train.arrow", "infos.pkl")
    index = infos_to_index(root, "infos.pkl", "again.arrow")
    assert (infos, index) == (root / "infos.pkl", root / "again.arrow")
    before, after = FrameIndex(root / "sparse3d_mini_train.arrow", root), FrameIndex(index, root)
    for found, expected in zip(after, before, strict=True):
        assert_same(found, expected)
    assert {key: after.metadata[key] for key in ("dataset", "version", "source")} == {
        "dataset": "nuscenes",
        "version": "v1.0-mini",
        "source": "infos.pkl",
    }
    again = index_to_infos(root, "again.arrow", "again.pkl")
    assert load_plain_pickle(again)["metainfo"] == load_plain_pickle(infos)["metainfo"]


def test_a_data_set_of_either(root: Path) -> None:
    index_to_infos(root, "sparse3d_mini_train.arrow", "infos.pkl")
    pipeline = [dict(type="LoadPoints", sweeps=3), dict(type="LoadAnnotations", class_names=DETECTION_CLASSES)]
    ours, theirs = (
        NuScenesDataset(root, name, pipeline=pipeline)[1] for name in ("sparse3d_mini_train.arrow", "infos.pkl")
    )
    assert ours.points.equal(theirs.points)
    np.testing.assert_array_equal(ours.gt.boxes.numpy(), theirs.gt.boxes.numpy())
    assert ours.gt.labels.equal(theirs.gt.labels)


def test_other_data_sets_are_refused(root: Path, frames: list[Frame]) -> None:
    write_index(root / "waymo.arrow", frames, {"dataset": "waymo"}, SYNTH)
    with pytest.raises(ValueError, match="of nuScenes alone, this is an index of waymo"):
        index_to_infos(root, "waymo.arrow", "infos.pkl")
    with pytest.raises(FileNotFoundError, match="there is no index"):
        index_to_infos(root, "none.arrow", "infos.pkl")
    assert not (root / "infos.pkl").exists()
