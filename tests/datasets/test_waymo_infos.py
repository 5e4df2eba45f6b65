"""mmdetection3d's info files of Waymo: geometry, sweeps, what is unknown, and the recorded sample."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse3d.datasets import WaymoDataset, read_mmdet3d_infos
from sparse3d.datasets.poses import invert_poses

CLASSES = ["Vehicle", "Pedestrian", "Cyclist"]
METAINFO = {"dataset": "waymo", "version": "waymo_v1.4", "info_version": "mmdet3d_v1.4"}


def entry(number: int) -> dict[str, Any]:
    pose = np.eye(4)
    pose[:3, 3] = [2.0 * number, 1.0, 0.0]
    instance = dict(bbox_3d=[10.0, 2.0, -1.0, 4.0, 2.0, 3.0, 0.5], bbox_label_3d=0, num_lidar_pts=9)
    return dict(
        sample_idx=1_000_000 + number,
        timestamp=1000 + 100_000 * number,
        context_name="segment",
        ego2global=pose.tolist(),
        images={
            "CAM_FRONT_LEFT": dict(
                img_path=f"{number}.jpg",
                height=1280,
                width=1920,
                cam2img=[[2000.0, 0, 960, 0], [0, 2001.0, 640, 0], [0, 0, 1, 0]],
                lidar2cam=[[0, -1, 0, 0.5], [0, 0, -1, 2.0], [1, 0, 0, -1.5], [0, 0, 0, 1]],
            )
        },
        lidar_points=dict(lidar_path=f"{number}.bin", num_pts_feats=6),
        instances=[
            dict(instance, group_id=4, camera_id=1),
            dict(instance, group_id=7, camera_id=-1, bbox_label_3d=2),
        ],
        cam_sync_instances=[dict(instance, group_id=4, camera_id=1, bbox_3d=[11.0, 2, -1, 4, 2, 3, 0.6])],
    )


def written(folder: Path, entries: list[dict[str, Any]]) -> Path:
    path = folder / "waymo_infos_train.pkl"
    path.write_bytes(pickle.dumps({"metainfo": METAINFO, "data_list": entries}))
    return path


def test_frames_are_as_the_converter_means_them(tmp_path: Path) -> None:
    later, frame = read_mmdet3d_infos(written(tmp_path, [entry(1), entry(0)]), tmp_path)
    assert (frame.token, frame.sweeps) == ("segment/1000", ())
    (sweep,) = later.sweeps
    assert sweep.path == str(tmp_path / "training" / "velodyne" / "0.bin")
    np.testing.assert_allclose(sweep.lidar2key[:3, 3], [-2, 0, 0])
    (camera,) = frame.cameras
    assert camera.path == str(tmp_path / "training" / "image_1" / "0.jpg")
    assert (camera.name, camera.width) == ("FRONT_LEFT", 1920)
    np.testing.assert_allclose(camera.lidar2cam, entry(0)["images"]["CAM_FRONT_LEFT"]["lidar2cam"], atol=1e-12)
    np.testing.assert_allclose(invert_poses(camera.cam2ego), camera.lidar2cam, atol=1e-12)
    annotations = frame.annotations
    assert annotations.categories == ("Vehicle", "Cyclist")
    np.testing.assert_allclose(annotations.boxes[0, :7], [10, 2, 0.5, 4, 2, 3, 0.5])
    assert np.isnan(annotations.boxes[:, 7:]).all()
    assert annotations.waymo.most_visible_cameras.tolist() == [2, 0]
    np.testing.assert_allclose(annotations.waymo.camera_synced_boxes[0], [11, 2, 0.5, 4, 2, 3, 0.6])


@pytest.mark.parametrize("missing", ["context_name", "ego2global", "lidar_points", "cam_sync_instances"])
def test_an_entry_that_lacks_something(tmp_path: Path, missing: str) -> None:
    broken = entry(0)
    del broken[missing]
    with pytest.raises(ValueError, match=f"waymo_infos_train.pkl: KeyError: '{missing}'"):
        read_mmdet3d_infos(written(tmp_path, [broken]), tmp_path)


def test_the_recorded_sample(shared: Path) -> None:
    root = shared / "data" / "waymo_samples" / "kitti_format"
    load = [dict(type="LoadWaymoPoints", no_label_zones="drop"), dict(type="LoadAnnotations", class_names=CLASSES)]
    sample = WaymoDataset(root, "waymo_infos_train.pkl", CLASSES, load)[0]
    assert sample.points.shape == (800, 5)
    assert sample.points[:, 3].max() <= 1
    np.testing.assert_allclose(sample.gt.boxes.tensor[0, :3], [31.96047, -2.35443, 2.20663 + 1.6], atol=1e-4)
    assert sample.frame.cameras[0].name == "FRONT"
